"""Listening sockets for HOST:PORT, on every address that the host means."""

import errno
import ipaddress
import socket
from typing import Any, TypeAlias

__all__ = ["listen", "why_not"]

_BACKLOG = 128
# The machine lacks this address, or the whole family of addresses.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# Tries to find a port that is free on all addresses.
_MAX_TRIES = 10

_Target: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]


def listen(address: str) -> list[socket.socket]:
    """Listen on each address that HOST:PORT means, as gRPC does.

    A wildcard (`0.0.0.0`, `[::]`) means all addresses of IPv4 and IPv6, and a name means all its addresses.
    Addresses that this machine lacks are left out, if it has another one. Port 0 takes one free port for all.

    Raises:
        OSError: The name is unknown, the machine has none of the addresses, or one of them is in use.
    """
    host, _, port_text = address.rpartition(":")
    port = int(port_text)
    targets = _targets(host.removeprefix("[").removesuffix("]"), port)
    for tries_left in reversed(range(_MAX_TRIES)):
        try:
            return _listen_on_all(targets)
        except OSError as error:
            # The free port of the first address may be in use on the second one.
            if port or error.errno != errno.EADDRINUSE or not tries_left:
                raise
    raise AssertionError


def why_not(error: Exception) -> str:
    """Return why `listen` failed, for a message."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return "another program listens there"
    if number in _ABSENT:
        return "it is not an address of this machine"
    if number in (errno.EACCES, errno.EPERM):
        return "this user may not listen there (ports below 1024 often need more rights)"
    return str(getattr(error, "strerror", None) or error)


def _targets(host: str, port: int) -> list[_Target]:
    """Return family and socket address of each address of `host`."""
    if f".{host.lower()}".endswith(".localhost"):
        # It is both loopback addresses, whatever the file of hosts has (RFC 6761, section 6.3).
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    targets: list[_Target] = list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))
    if any(ipaddress.ip_address(sockaddr[0]).is_unspecified for _, sockaddr in targets):
        return [(socket.AF_INET, ("", port)), (socket.AF_INET6, ("::", port))]
    return targets


def _listen_on_all(targets: list[_Target]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, (host, port, *rest) in targets:
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_listen_on(family, (host, chosen, *rest)))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
        if absent is not None and not sockets:
            raise absent
    except OSError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _listen_on(family: socket.AddressFamily, sockaddr: tuple[Any, ...]) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has a socket of its own.
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(sockaddr)
        opened.listen(_BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened
