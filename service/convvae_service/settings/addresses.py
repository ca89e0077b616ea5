"""The addresses of a server: HOST:PORT, or the path of a Unix socket as gRPC writes it."""

import re

__all__ = ["check_address", "check_addresses", "check_socket_mode", "socket_path"]

# gRPC reads a path as a part of a URI, in which other characters have a meaning of their own.
_SOCKET = re.compile(r"unix:(?://(?=/))?(?P<path>(?!//)[A-Za-z0-9/._~@+=-]+)")
# The system takes 107 bytes, and a socket has a name of 7 characters at first.
_MAX_SOCKET_PATH = 100


def socket_path(address: str) -> str | None:
    """Return the path of the Unix socket that an address is; None for another address."""
    match = _SOCKET.fullmatch(address)
    return match and match["path"]


def check_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Return `addresses` if a server can be told to listen on them.

    Raises:
        ValueError: There is none, one is malformed, or one is there twice.
    """
    if not addresses:
        raise ValueError("names no address: give HOST:PORT or unix:PATH")
    for address in addresses:
        if address.startswith("unix:"):
            _check_socket(address)
        else:
            check_address(address)
        if addresses.count(address) > 1:
            raise ValueError(f"{address} is given twice")
    return addresses


def check_address(address: str) -> str:
    """Return `address` if it is HOST:PORT.

    Raises:
        ValueError: It is not.
    """
    host, _, port = address.rpartition(":")
    is_number = port.isascii() and port.isdecimal() and int(port) <= 65535
    if not host or host == "unix" or not is_number:
        raise ValueError(f"{address!r} is not HOST:PORT, as in 127.0.0.1:50051")
    if (":" in host or "[" in host) and not re.fullmatch(r"\[[^][]*:[^][]*\]", host):
        raise ValueError(
            f"{address!r} is not HOST:PORT: an IPv6 address stands in brackets, as in [::1]:50051"
        )
    return address


def check_socket_mode(mode: str) -> str:
    """Return `mode` if it is the permissions of a file in octal.

    Raises:
        ValueError: It is not.
    """
    if not re.fullmatch(r"0?[0-7]{3}", mode):
        raise ValueError(f"{mode!r} is not permissions in octal, as in 660")
    return mode


def _check_socket(address: str) -> None:
    path = socket_path(address)
    if path is None:
        raise ValueError(
            f"{address!r} is not unix:PATH, as in unix:/run/convvae.sock: a path has letters, digits and"
            " / . _ ~ @ + = -"
        )
    if len(path) > _MAX_SOCKET_PATH:
        raise ValueError(
            f"{address!r} is too long: a socket's path has {_MAX_SOCKET_PATH} characters at most"
        )
