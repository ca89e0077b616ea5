"""The proxy of the environment that gRPC uses for a target, for error messages."""

import ipaddress
import os
from urllib.parse import urlsplit

from convvae.addresses import host_of, is_loopback

__all__ = ["describe_proxy"]

# gRPC takes the first variable that is set.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def describe_proxy(target: str) -> str:
    """Return the proxy that gRPC uses for `target`, with its variable, or an empty string without a proxy.

    Of a list of exceptions, gRPC reads the ends of host names and ranges such as 10.0.0.0/8. It reads neither
    `*` nor ports.
    """
    variable = next((name for name in _PROXIES if os.environ.get(name)), None)
    if variable is None or is_loopback(target):
        return ""
    host = host_of(target).lower()
    exceptions = next((name for name in _EXCEPTIONS if os.environ.get(name)), None)
    entries = [entry.strip().lower() for entry in os.environ.get(exceptions or "", "").split(",")]
    if any(_matches(host, entry) for entry in entries if entry):
        return ""
    proxy = urlsplit(os.environ[variable])
    # Without the name and password that the variable may have.
    shown = proxy.netloc.rpartition("@")[2] or os.environ[variable].rpartition("@")[2]
    text = f"the connection goes through the proxy {shown} of {variable}"
    return f"{text}; {exceptions} does not name {host} as gRPC reads it" if exceptions else text


def _matches(host: str, entry: str) -> bool:
    if host.endswith(entry):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
