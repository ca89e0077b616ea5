"""The front of grpcio: it turns bytes and metadata into calls, and answers into replies and statuses."""

import asyncio
import logging
import time
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from convvae_service.calls.message_limits import message_limits
from convvae_service.calls.on_loop import run_on_loop
from convvae_service.calls.request_reader import RequestReader
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.running_call import drop_frames
from convvae_service.calls.service import Method, ProbeMethod, Service, Stream, StreamHandler
from convvae_service.calls.status import Refusal
from convvae_service.errors import ServiceError
from convvae_service.observability.call import Call
from convvae_service.observability.grpc_metrics import OTHER
from convvae_service.server.compression import Unpacking
from convvae_service.server.connections import server_options
from convvae_service.server.credentials import Credentials
from convvae_service.server.draining import wait_for_calls
from convvae_service.server.grpc_context import Context, abort, begin_call
from convvae_service.server.grpc_log import GrpcLog
from convvae_service.server.hang_up import end_all_but
from convvae_service.server.listening import listen
from convvae_service.server.local_addresses import LocalAddresses, LocalEnd
from convvae_service.server.request_guard import RequestGuard
from convvae_service.server.sent_bytes import received_bytes
from convvae_service.server.unknown_methods import server_of_known_methods
from convvae_service.server.unsent_replies import UnsentReplies
from convvae_service.settings.serve import ServeSettings

__all__ = ["GrpcFront"]

# One for the process, as gRPC's logger is.
_GRPC_LOG = GrpcLog()
_NEVER_S = 1e6
# If no call has arrived for this time, none is taken to arrive at the moment of a stop.
_RECENT_S = 0.2


class GrpcFront:
    """One grpcio server on its addresses, with encryption and tokens where the settings have them."""

    # It has no thread of its own, only the event loop.
    busy_since_s = None

    def __init__(
        self,
        settings: ServeSettings,
        runner: CallRunner,
        credentials: Credentials,
        *,
        faces_callers: bool = True,
    ) -> None:
        """Set up; no address is open yet.

        Args:
            settings: The settings of the server.
            runner: Runs the calls.
            credentials: The certificate and the tokens.
            faces_callers: Whether callers connect to this front itself. Then connections above
                `max_connections` are refused, and so are parts of messages above their limit. Behind another
                front, memory does not show whose parts there are.
        """
        self._addresses = LocalAddresses(settings)
        self._ends_in_front: frozenset[LocalEnd] = frozenset()
        self._runner = runner
        self._certificate = credentials.certificate
        self._guard = RequestGuard(
            runner,
            credentials.tokens,
            Unpacking(settings.request_compression, max_bytes=settings.max_message_bytes),
            max_stream_idle_s=settings.max_stream_idle_s,
            max_metadata_bytes=settings.max_metadata_bytes,
        )
        self._message_limits = message_limits(settings)
        self._partial_messages = (
            self._guard.partial_messages(
                max_bytes=9 * settings.max_pending_bytes // 8,
                sent=lambda: received_bytes(self._addresses.ends),
            )
            if faces_callers
            else None
        )
        reading_s = settings.max_stream_idle_s or settings.max_call_s
        self._unsent = UnsentReplies(runner.pending, at_most_s=reading_s)
        # The address of each caller that waits for an answer and is not refused, until the answer is sent.
        self._peers: dict[Hashable, str] = {}
        self._watching: asyncio.Task[None] | None = None
        self.limits_connections = faces_callers
        options = server_options(settings, limits_connections=faces_callers)
        self._server = server_of_known_methods(options, runner.metrics.grpc.totals_of(OTHER))
        logging.getLogger("grpc._cython.cygrpc").addFilter(_GRPC_LOG)

    def add_service(self, service: Service) -> None:
        """Answer the methods of a service."""
        # Bytes in and bytes out: the messages are read and written where the call runs.
        calls = {method.name: partial(self._answer, method) for method in service.methods}
        calls |= {probe.name: partial(self._answer_probe, probe) for probe in service.probe_methods}
        self._register(service.descriptor, calls, raw=True)
        streams = {name: partial(self._serve_stream, name, serve) for name, serve in service.streams.items()}
        self._register(service.descriptor, streams)

    def add_servicer(
        self, descriptor: ServiceDescriptor, servicer: object, *, needs_token: bool, name: str = ""
    ) -> None:
        """Answer a service with an object that has a method (request, context) for each name in the proto.

        These calls do not go through the `CallRunner`: they are neither counted nor logged. `name` is the
        full name of the service, if it is not that of the descriptor.
        """
        names = [method.name for method in descriptor.methods if hasattr(servicer, method.name)]
        behaviours = {name: getattr(servicer, name) for name in names}
        self._register(descriptor, behaviours, needs_token=needs_token, name=name)

    @property
    def ends(self) -> frozenset[LocalEnd]:
        """The server's ends of its callers' connections, once the addresses are open."""
        return self._addresses.ends | self._ends_in_front

    def open_addresses(self) -> tuple[str, ...]:
        """Open the addresses of the settings, and return them with their ports.

        Raises:
            StartupError: An address cannot be used.
        """
        return self._addresses.open(self._bind)

    def open_socket(self, name: str, *, ends: frozenset[LocalEnd]) -> None:
        """Open an abstract Unix socket for another front, whose callers are at `ends`."""
        self._ends_in_front = ends
        self._server.add_insecure_port(f"unix-abstract:{name}")

    async def start(self) -> None:
        """Begin to take calls."""
        await self._server.start()
        if self._partial_messages is not None:
            self._partial_messages.start(asyncio.get_running_loop())
        self._watching = asyncio.create_task(self._unsent.run())

    def stop_reading(self) -> None:
        """Refuse, now and from now on, every call whose request has not arrived."""
        self._guard.stop_reading()

    async def stop(self, grace_s: float | None) -> None:
        """Close the addresses. Calls in flight have `grace_s` seconds to finish; None cancels them."""
        self._addresses.close()
        if grace_s is not None:
            # It closes the listeners. To end, it needs every peer to leave, also those without a call. Its
            # own limit must never pass: if it does while the other stop below ends, gRPC crashes.
            stopping = asyncio.ensure_future(self._stop_taking(grace_s + _NEVER_S))
            await wait_for_calls(
                stopping.done,
                self._runner,
                ends=self.ends,
                grace_s=grace_s,
                # Behind another front every caller has a Unix socket, and the other front watches its own.
                is_sending_unseen=lambda: self._addresses.has_sockets and self._unsent.has_unix_callers,
            )
        await self._server.stop(None)
        if self._partial_messages is not None:
            self._partial_messages.stop()
        if self._watching is not None:
            self._watching.cancel()

    async def _stop_taking(self, grace_s: float) -> None:
        if time.monotonic() - self._runner.last_arrival_s < _RECENT_S:
            # gRPC resets the calls that it has not handed over, which callers see as CANCELLED. Without their
            # connection they are UNAVAILABLE. In one step with the stop: callers connect again at once.
            end_all_but(set(self._peers.values()), self._addresses.ends)
        await self._server.stop(grace_s)

    def _bind(self, address: str) -> int:
        if not address.startswith("unix:"):
            # gRPC does not say why it cannot listen, and it is content with one address of several.
            for probe in listen(address):
                probe.close()
        if self._certificate is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, self._certificate.credentials)

    def _register(
        self,
        descriptor: ServiceDescriptor,
        behaviours: Mapping[str, Any],
        *,
        needs_token: bool = True,
        name: str = "",
        raw: bool = False,
    ) -> None:
        """Register methods. gRPC itself answers UNIMPLEMENTED for methods without a behaviour.

        Behaviours of `raw` methods take and return bytes, the others messages.
        """
        service = name or descriptor.full_name
        handlers: dict[str, Any] = {}
        for method in descriptor.methods:
            if method.name not in behaviours:
                continue
            read = (
                None if raw else RequestReader(GetMessageClass(method.input_type), self._message_limits).read
            )
            guard = self._guard.stream if method.client_streaming else self._guard.unary
            make = (
                grpc.stream_stream_rpc_method_handler
                if method.server_streaming
                else grpc.stream_unary_rpc_method_handler
            )
            handlers[method.name] = make(
                guard(
                    method.name,
                    behaviours[method.name],
                    totals=self._runner.metrics.grpc.totals_of(f"{service}/{method.name}"),
                    read=read,
                    needs_token=needs_token,
                ),
                response_serializer=None if raw else GetMessageClass(method.output_type).SerializeToString,
            )
        # As the generated stubs do: older releases of grpcio find the methods only in a generic handler.
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._server.add_registered_method_handlers(service, handlers)

    async def _answer(self, method: Method, request: bytes, context: Context) -> Any:
        call = begin_call(self._runner, method.name, context)
        # This task ends when gRPC has sent the answer, or when the caller has left.
        peer = context.peer()
        if self._runner.state.takes_calls:
            self._peers[call] = peer
        _current_task().add_done_callback(lambda _: self._release(call))
        left_s = context.time_remaining()
        answering = run_on_loop(
            partial(
                self._runner.prepare,
                call,
                method.answer,
                request,
                request_bytes=len(request),
                time_left_s=left_s,
            )
        )
        # The call may wait for long, and has read all of it.
        del request
        reply = await answering
        if isinstance(reply, Refusal):
            await abort(context, call, reply)
        self._unsent.add(call, peer)
        return reply

    def _release(self, call: Call) -> None:
        self._peers.pop(call, None)
        self._unsent.discard(call)
        call.held.release()

    async def _answer_probe(self, probe: ProbeMethod, request: bytes, context: Context) -> Any:
        try:
            return probe.answer(request)
        except ServiceError as error:
            # The request may be large, and the error outlives it.
            del request
            drop_frames(error)
            call = begin_call(self._runner, probe.name, context)
            await abort(context, call, self._runner.refuse(call, error))

    async def _serve_stream(self, name: str, serve: StreamHandler, requests: Any, context: Context) -> None:
        request_id = begin_call(self._runner, name, context).request_id

        peer = context.peer()

        async def write(reply: Any) -> None:
            self._unsent.add(context, peer)
            try:
                await context.write(reply)
            finally:
                self._unsent.discard(context)

        self._peers[context] = peer
        try:
            await serve(
                requests, Stream(request_id=request_id, write=write, time_left_s=context.time_remaining)
            )
        finally:
            del self._peers[context]


def _current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task
