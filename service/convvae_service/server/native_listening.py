"""Listeners of pygrpc-native for HOST:PORT, on every address that the host means."""

import ipaddress
import socket
from collections.abc import Callable

from pygrpc_native import NativeGrpcFront

from convvae_service.server.listening import listen

__all__ = ["listen_natively"]

# Tries to find a port that is free on all addresses.
_MAX_TRIES = 10


def listen_natively(address: str, make: Callable[[str], NativeGrpcFront]) -> list[NativeGrpcFront]:
    """Return a listener for each address that HOST:PORT means, as `listen` does. They take no calls yet.

    pygrpc-native itself is content with one address of several.

    Args:
        address: HOST:PORT. Port 0 takes one free port for all.
        make: Makes the listener of one address, such as `127.0.0.1:0`.

    Raises:
        OSError: The name is unknown, the machine has none of the addresses, or one of them is in use.
        RuntimeError: pygrpc-native cannot start its threads.
    """
    # They find which addresses there are, and whether each is free.
    probes = listen(address)
    hosts = _hosts([(probe.family, probe.getsockname()[0]) for probe in probes])
    for probe in probes:
        probe.close()
    port = int(address.rpartition(":")[2])
    for tries_left in reversed(range(_MAX_TRIES)):
        try:
            return _listen_on_all(hosts, port, make)
        except OSError:
            # The free port of the first address may be in use on the second one.
            if port or not tries_left:
                raise
    raise AssertionError


def _listen_on_all(
    hosts: list[str], port: int, make: Callable[[str], NativeGrpcFront]
) -> list[NativeGrpcFront]:
    listeners: list[NativeGrpcFront] = []
    try:
        for host in hosts:
            chosen = listeners[0].bound_port if listeners else port
            listeners.append(make(f"{host}:{chosen}"))
    except (OSError, RuntimeError):
        for opened in listeners:
            opened.close()
        raise
    return listeners


def _hosts(addresses: list[tuple[socket.AddressFamily, str]]) -> list[str]:
    """Return the hosts as they stand before a port."""
    wildcards = [family for family, host in addresses if ipaddress.ip_address(host).is_unspecified]
    if len(wildcards) > 1 and _takes_ipv4():
        return ["[::]"]
    return [f"[{host}]" if family == socket.AF_INET6 else host for family, host in addresses]


def _takes_ipv4() -> bool:
    """Return whether a socket of IPv6 takes connections of IPv4 too, which is a setting of the system."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as opened:
        return not opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
