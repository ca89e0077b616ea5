"""A grpcio server that lives on when a caller names a method that is no UTF-8.

grpcio decodes the names of methods that are not registered in the task that receives all calls. A name that
is no UTF-8 ends this task, and with it the server (grpcio 1.85.1, `AioServer._server_main_loop`). Any caller
could do that with one call, before its token is checked. Here another task receives these calls, and refuses
them without a look at the name. Older releases decode the name in the task of the call, and use nothing of
this.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from convvae_service.observability.grpc_metrics import MethodTotals

__all__ = ["server_of_known_methods"]

_log = logging.getLogger(__name__)
# For the log of gRPC, in place of the name.
_NAME = "unknown"


def server_of_known_methods(options: Sequence[tuple[str, Any]], others: MethodTotals) -> grpc.aio.Server:
    """Return a server whose methods must all be registered; it answers others with UNIMPLEMENTED.

    `others` counts those.
    """
    plain = cygrpc.AioServer
    cygrpc.AioServer = type(_KnownMethods.__name__, (_KnownMethods,), {"others": others})
    try:
        return grpc.aio.server(options=options)
    finally:
        cygrpc.AioServer = plain


class _NoMethods:
    """Finds no handler for any call."""

    def resolve_handler(self, _details: object) -> None:
        """Return no handler."""


class _KnownMethods(cygrpc.AioServer):  # type: ignore[misc]
    """Receives calls of unknown methods in a task of their own."""

    others: MethodTotals

    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Future[Any]":
        if method is not None:
            return super()._make_request_call_future(method)  # type: ignore[no-any-return]
        loop = asyncio.get_running_loop()
        self._refusing = loop.create_task(self._refuse_all())
        # The main task waits for this one until it ends, and then cancels it.
        never: asyncio.Future[Any] = loop.create_future()
        never.add_done_callback(lambda _: self._refusing.cancel())
        return never

    async def _refuse_all(self) -> None:
        loop = asyncio.get_running_loop()
        refusals: set[asyncio.Task[Any]] = set()
        while True:
            try:
                state = await self._request_call()
            except Exception:  # noqa: BLE001 - it has no public name
                # The server stops.
                return
            self.others.started += 1
            self.others.end("UNIMPLEMENTED", 0.0, sent=0, received=0)
            try:
                refusal = cygrpc._handle_rpc(_NAME, _NoMethods(), (), state, loop, False)
                task = loop.create_task(cygrpc._schedule_rpc_coro(refusal, state, loop, _NAME))
            except Exception:  # noqa: BLE001 - without its state, gRPC cancels the call
                _log.exception("internal error: a call of an unknown method is not refused")
                continue
            refusals.add(task)
            task.add_done_callback(refusals.discard)
            del state, refusal, task
