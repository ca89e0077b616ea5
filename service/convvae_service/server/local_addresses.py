"""The addresses that a front listens on: those of its settings, HOST:PORT or a Unix socket."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from convvae_service.errors import StartupError
from convvae_service.server.listening import why_not
from convvae_service.server.unix_socket import UnixSocket
from convvae_service.settings.addresses import socket_path
from convvae_service.settings.serve import ServeSettings

__all__ = ["LocalAddresses", "LocalEnd"]

# The server's end of a connection, as the system names it: the port, or the path that was bound.
LocalEnd: TypeAlias = int | str


class LocalAddresses:
    """The addresses of one front. Nothing is open yet.

    Attributes:
        ends: The server's ends of the connections to the addresses that are open.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._addresses = settings.address
        self._mode = settings.socket_permissions
        self._sockets: list[UnixSocket] = []
        self.ends: frozenset[LocalEnd] = frozenset()

    def open(self, bind: Callable[[str], int]) -> tuple[str, ...]:
        """Open each address, and return them with the ports that were chosen for port 0.

        Args:
            bind: Listens on one address, and returns its port.

        Raises:
            StartupError: An address cannot be used.
        """
        return tuple(self._open(address, bind) for address in self._addresses)

    @property
    def has_sockets(self) -> bool:
        """Whether a Unix socket is open."""
        return bool(self._sockets)

    def close(self) -> None:
        """Remove the files of Unix sockets."""
        for opened in self._sockets:
            opened.close()

    def _open(self, address: str, bind: Callable[[str], int]) -> str:
        end: LocalEnd
        try:
            if path := socket_path(address):
                opened = UnixSocket(Path(path), self._mode)
                opened.open(bind)
                self._sockets.append(opened)
                end, name = opened.bound, address
            else:
                end = bind(address)
                name = f"{address.rpartition(':')[0]}:{end}"
        except (OSError, RuntimeError) as error:
            raise StartupError(
                f"address {address} cannot be used: {why_not(error)}; choose another with --address"
            ) from None
        self.ends |= {end}
        return name
