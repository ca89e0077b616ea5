"""The choice of a front: the part that reads calls from the network and sends their answers."""

import mmap
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.descriptor import ServiceDescriptor

from convvae.addresses import is_loopback
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.service import Service
from convvae_service.errors import StartupError
from convvae_service.server.credentials import Credentials
from convvae_service.server.local_addresses import LocalEnd
from convvae_service.settings.serve import ServeSettings

__all__ = ["Front", "FrontChoice", "build_front", "choose_front"]

# pygrpc-native reserves the length that a message states, before its bytes arrive. The process ends where the
# system refuses that: it has less memory than this, or vm.overcommit_memory is 2.
_MAX_STATED_BYTES = 2**32


class Front(Protocol):
    """Everything between the network and the `CallRunner`."""

    # Whether connections above `max_connections` are refused.
    limits_connections: bool

    @property
    def ends(self) -> frozenset[LocalEnd]:
        """The server's ends of its callers' connections, once the addresses are open."""

    @property
    def busy_since_s(self) -> float | None:
        """The `time.monotonic` since which the front starts the same calls; None while it waits for calls."""

    def add_service(self, service: Service) -> None:
        """Answer the methods of a service."""

    def add_servicer(
        self, descriptor: ServiceDescriptor, servicer: object, *, needs_token: bool, name: str = ""
    ) -> None:
        """Answer a service with an object of grpcio that has a method for each name in the proto."""

    def open_addresses(self) -> tuple[str, ...]:
        """Open the addresses of the settings, and return them with their ports."""

    async def start(self) -> None:
        """Begin to take calls."""

    def stop_reading(self) -> None:
        """Refuse, now and from now on, every call whose request has not arrived, if the front can tell."""

    async def stop(self, grace_s: float | None) -> None:
        """Close the addresses. Calls in flight have `grace_s` seconds to finish; None cancels them."""


@dataclass(frozen=True, slots=True)
class FrontChoice:
    """The name of a front, and the reason why it was chosen."""

    name: str
    reason: str


def choose_front(settings: ServeSettings) -> FrontChoice:
    """Return the front that the settings name, or for `auto` the fastest one that is safe with all of them.

    Raises:
        StartupError: The settings name the native front, and it lacks what another setting needs, or it is
            not installed.
    """
    if settings.front == "grpcio":
        return FrontChoice("grpcio", "--front grpcio")
    lack = _why_not_native(settings)
    if settings.front == "native":
        if lack is not None:
            raise StartupError(lack)
        return FrontChoice("native", "--front native")
    lack = lack or _why_rather_grpcio(settings)
    if lack is not None:
        return FrontChoice("grpcio", lack)
    return FrontChoice("native", "no setting needs --front grpcio")


def build_front(
    choice: FrontChoice, settings: ServeSettings, runner: CallRunner, credentials: Credentials
) -> Front:
    """Return the chosen front; no port is open yet."""
    # Each loads libraries that the other does not need.
    if choice.name == "native":
        from convvae_service.server.native_front import NativeFront

        return NativeFront(settings, runner, credentials)
    from convvae_service.server.grpc_front import GrpcFront

    return GrpcFront(settings, runner, credentials)


def _why_not_native(settings: ServeSettings) -> str | None:
    """Return why the native front cannot serve with these settings, None if it can."""
    given = settings.model_fields_set
    lacks = {
        "--tls-certificate": (settings.tls_certificate is not None, "TLS"),
        "--max-connections": (
            "max_connections" in given and settings.max_connections > 0,
            "limit on connections",
        ),
        "--min-ping-interval-s": ("min_ping_interval_s" in given, "limit on the pings of callers"),
        "--max-connection-age-s": (settings.max_connection_age_s > 0, "age of connections"),
    }
    for flag, (needed, what) in lacks.items():
        if needed:
            return f"{flag} needs --front grpcio: the native front has no {what}"
    try:
        import pygrpc_native  # noqa: F401
    except ImportError as error:
        return f"the native front needs pygrpc-native ({error}): pip install 'convvae[native]'"
    return None


def _why_rather_grpcio(settings: ServeSettings) -> str | None:
    """Return why the native front could serve with these settings but is not the best choice, or None."""
    for address in settings.address:
        if not is_loopback(address):
            return f"callers at {address} are not known; --front native trusts them"
    if settings.token_file is not None:
        return "--token-file: the native front reads a request of any size before it checks the token"
    try:
        mmap.mmap(-1, _MAX_STATED_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return "this system cannot reserve the 4 GiB that the native front may need for one message"
    return None
