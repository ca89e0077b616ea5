"""The server's ends of its connections, as the system names them: the port, or the path that was bound."""

import socket
from typing import TypeAlias

__all__ = ["LocalEnd", "local_end"]

LocalEnd: TypeAlias = int | str


def local_end(connection: socket.socket) -> LocalEnd | None:
    """Return the server's end of a connection, None if it is neither TCP nor a Unix socket."""
    if connection.type != socket.SOCK_STREAM:
        return None
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        return int(connection.getsockname()[1])
    name = connection.getsockname() if connection.family == socket.AF_UNIX else None
    return name if isinstance(name, str) else None
