"""The targets of gRPC that are certain to be this machine."""

import ipaddress

__all__ = ["first_of_several", "host_of", "is_loopback"]


def is_loopback(target: str) -> bool:
    """Return whether every address of a gRPC target is certain to be this machine."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in ("unix", "unix-abstract"):
        return True
    if colon and scheme in ("ipv4", "ipv6"):
        return all(_is_loopback_host(_host(address)) for address in rest.lstrip("/").split(","))
    if colon and scheme == "dns":
        rest = rest.rpartition("/")[2]
        return _is_loopback_host(_host(rest))
    if "://" in target:
        return False
    return _is_loopback_host(_host(target))


def first_of_several(target: str) -> str | None:
    """Return the first address of a target with several, such as `ipv4:HOST:PORT,HOST:PORT`, or None."""
    scheme, _, rest = target.partition(":")
    if scheme not in ("ipv4", "ipv6") or "," not in rest:
        return None
    return rest.lstrip("/").partition(",")[0]


def host_of(target: str) -> str:
    """Return the host of a gRPC target, or of its first address."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in ("ipv4", "ipv6"):
        return _host(rest.lstrip("/").partition(",")[0])
    if colon and (scheme == "dns" or rest.startswith("//")):
        return _host(rest.rpartition("/")[2])
    return _host(target)


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    # More than one colon and no brackets: an IPv6 address without a port.
    return address.partition(":")[0] if address.count(":") == 1 else address


def _is_loopback_host(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.replace("%25", "%").partition("%")[0]).is_loopback
    except ValueError:
        return False
