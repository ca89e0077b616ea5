"""Standard health (`grpc.health.v1`): overall, per service and model, and a liveness that a drain keeps."""

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

import grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

__all__ = ["LIVENESS", "Health"]

LIVENESS = "liveness"
_SERVING, _NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


class Health(HealthServicer):  # type: ignore[misc]
    """Check and Watch. Every name but `liveness` starts as NOT_SERVING and follows `set_ready`."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._names = ("", *names)
        self._closing = asyncio.Event()
        self._server_status = dict.fromkeys(self._names, _NOT_SERVING)
        self._server_status[LIVENESS] = _SERVING

    async def set_ready(self, names: Collection[str]) -> None:
        """Report these names as SERVING, and the overall one if there are any; the others as NOT_SERVING."""
        for name in self._names:
            ready = name in names or (not name and bool(names))
            await self.set(name, _SERVING if ready else _NOT_SERVING)

    def end_watches(self) -> None:
        """End all streams of Watch, which would otherwise keep a stopping server to the end of its grace."""
        self._closing.set()

    async def Watch(self, request: HealthCheckRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        """Report a name's state and every change of it, until the caller leaves or the server stops."""
        watch = asyncio.ensure_future(super().Watch(request, context))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((watch, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            closing.cancel()
