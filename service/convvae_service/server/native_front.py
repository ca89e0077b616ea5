"""The front of pygrpc-native: HTTP/2 and gRPC run in a thread without the GIL, and calls arrive in bursts.

It serves methods with one request and one reply. The others (health, reflection, streams) go through a grpcio
front behind it, on an abstract socket of Unix: it needs no file, and all promises of grpcio hold for them.
"""

import asyncio
import logging
import secrets

from google.protobuf.descriptor import ServiceDescriptor
from pygrpc_native import NativeGrpcFront

from convvae_service.calls.runner import CallRunner
from convvae_service.calls.service import Method, ProbeMethod, Service
from convvae_service.server.connections import KEEPALIVE_TIMEOUT_MS, receive_limit
from convvae_service.server.credentials import Credentials
from convvae_service.server.draining import wait_for_calls
from convvae_service.server.grpc_front import GrpcFront
from convvae_service.server.local_addresses import LocalAddresses, LocalEnd
from convvae_service.server.native_listening import listen_natively
from convvae_service.server.native_port import NativePort, SizeLimits
from convvae_service.server.sent_bytes import received_bytes
from convvae_service.server.silent_callers import SilentCallers
from convvae_service.settings.serve import ServeSettings

__all__ = ["NativeFront"]

# Threads for HTTP/2. On two cores an empty call takes 41 to 47 us of processor time with one thread, 55 to 60
# with two.
_IO_THREADS = 1
_NO_KEEPALIVE_MS = 2**31 - 1
# HTTP/2 itself refuses metadata above the limit times this, with a status that callers see as UNKNOWN.
_METADATA_FACTOR = 4
# Maximum time to send replies when the last call is answered: this front never stops taking calls, and bytes
# of those that are refused cannot be told from bytes of replies.
_MAX_SENDING_S = 5.0


class NativeFront:
    """Listeners in Rust on every address, and a grpcio front behind them."""

    limits_connections = False

    def __init__(self, settings: ServeSettings, runner: CallRunner, credentials: Credentials) -> None:
        """Set up; no address is open yet."""
        self._settings = settings
        self._runner = runner
        self._tokens = credentials.tokens
        self._methods: list[Method | ProbeMethod] = []
        self._addresses = LocalAddresses(settings)
        self._socket_name = f"convvae-{secrets.token_hex(16)}"
        self._ports: list[NativePort] = []
        self._socket_ports: list[NativePort] = []
        self._watching: asyncio.Task[None] | None = None
        # Each connection may have one to the front behind. Limits there would refuse callers who did nothing.
        self._behind = GrpcFront(settings, runner, credentials, faces_callers=False)
        # It warns 20 times a second while no file can be opened. `ConnectionWatch` says so once a minute.
        logging.getLogger("pygrpc_native").setLevel(logging.ERROR)

    @property
    def ends(self) -> frozenset[LocalEnd]:
        """The server's ends of its callers' connections, once the addresses are open."""
        return self._addresses.ends

    @property
    def busy_since_s(self) -> float | None:
        """The `time.monotonic` since which a port starts the same calls; None while all wait for calls."""
        return min(
            (since_s for port in self._ports if (since_s := port.busy_since_s) is not None), default=None
        )

    def add_service(self, service: Service) -> None:
        """Answer the methods of a service."""
        self._methods += [*service.methods, *service.probe_methods]
        self._behind.add_service(service)

    def add_servicer(
        self, descriptor: ServiceDescriptor, servicer: object, *, needs_token: bool, name: str = ""
    ) -> None:
        """Answer a service with an object that has a method (request, context) for each name in the proto."""
        self._behind.add_servicer(descriptor, servicer, needs_token=needs_token, name=name)

    def open_addresses(self) -> tuple[str, ...]:
        """Open the addresses of the settings, and return them with their ports.

        Raises:
            StartupError: An address cannot be used.
        """
        opened = self._addresses.open(self._bind)
        self._behind.open_socket(self._socket_name, ends=self.ends)
        return opened

    async def start(self) -> None:
        """Begin to take calls."""
        await self._behind.start()
        for port in self._ports:
            port.start()
        runner, settings = self._runner, self._settings
        silent = SilentCallers(
            # A stream may be silent for longer than a call. The runner knows it by the front behind alone.
            at_most_s=max(settings.max_call_s, settings.max_stream_idle_s),
            sent=lambda: received_bytes(self.ends),
            explained_bytes=lambda: runner.pending.num_bytes + runner.decoding_bytes(),
            busy=lambda: {call.peer for call in runner.calls},
        )
        self._watching = asyncio.create_task(silent.run())

    def stop_reading(self) -> None:
        """Refuse every stream whose next request has not arrived. Other calls are seen when whole."""
        self._behind.stop_reading()

    async def stop(self, grace_s: float | None) -> None:
        """Close the addresses. Calls in flight have `grace_s` seconds to finish; None cancels them."""
        self._addresses.close()
        await asyncio.gather(self._behind.stop(grace_s), self._finish(grace_s or 0.0))
        for port in self._ports:
            await asyncio.to_thread(port.close)
        if self._watching is not None:
            self._watching.cancel()

    async def _finish(self, grace_s: float) -> None:
        """Return when all calls are answered and their replies sent, or the time is up."""
        await wait_for_calls(
            lambda: not any(port.open for port in self._ports),
            self._runner,
            ends=self.ends,
            grace_s=grace_s,
            max_sending_s=_MAX_SENDING_S,
            is_sending_unseen=lambda: any(port.open for port in self._socket_ports),
        )

    def _bind(self, address: str) -> int:
        is_socket = address.startswith("unix:")
        listeners = [self._listen(address)] if is_socket else listen_natively(address, self._listen)
        limits = SizeLimits(receive_limit(self._settings), self._settings.max_metadata_bytes)
        for listener in listeners:
            # The zero byte is how Linux names an abstract socket.
            listener.set_fallback(f"\0{self._socket_name}")
            port = NativePort(listener, self._methods, self._runner, limits, self._tokens)
            self._runner.metrics.grpc.add_source(port.totals)
            self._ports.append(port)
            if is_socket:
                self._socket_ports.append(port)
        return listeners[0].bound_port

    def _listen(self, target: str) -> NativeGrpcFront:
        settings = self._settings
        keepalive_ms = max(1, round(1000 * settings.keepalive_interval_s))
        return NativeGrpcFront(
            target,
            [(method.path, False) for method in self._methods],
            io_threads=_IO_THREADS,
            call_details=True,
            # They count the calls whose replies are not sent yet.
            metrics=True,
            keepalive_time_ms=keepalive_ms if settings.keepalive_interval_s else _NO_KEEPALIVE_MS,
            keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
            max_concurrent_streams=settings.max_calls_per_connection,
            max_metadata_size=_METADATA_FACTOR * settings.max_metadata_bytes,
        )
