"""The true reason of a failure that gRPC itself reports, because no convvae server answered.

gRPC has one status for many of them, and words that name its own parts. The patterns are those of grpcio 1.76
to 1.85.
"""

import re
from dataclasses import dataclass

import grpc

from convvae import errors
from convvae.errors import ConvvaeError
from convvae.transport.proxies import describe_proxy

__all__ = ["ConnectionFault", "find_connection_fault"]

_RESETS = {
    0: "NO_ERROR",
    1: "PROTOCOL_ERROR",
    2: "INTERNAL_ERROR",
    3: "FLOW_CONTROL_ERROR",
    4: "SETTINGS_TIMEOUT",
    5: "STREAM_CLOSED",
    6: "FRAME_SIZE_ERROR",
    7: "REFUSED_STREAM",
    8: "CANCEL",
    9: "COMPRESSION_ERROR",
    10: "CONNECT_ERROR",
    11: "ENHANCE_YOUR_CALM",
    12: "INADEQUATE_SECURITY",
    13: "HTTP_1_1_REQUIRED",
}
# HTTP statuses of an intermediary that a retry cannot change.
_HTTP_CLASSES: dict[int, type[ConvvaeError]] = {
    401: errors.AccessDenied,
    403: errors.AccessDenied,
    407: errors.AccessDenied,
    413: errors.MessageTooLarge,
}
_RESET = re.compile(r"RST_STREAM with error code (\d+)")
_HTTP_STATUS = re.compile(r"Received http2 (?::status )?header with (?:non-200 OK )?status: (\d+)")
_NO_TRAILERS = re.compile(
    r"END_STREAM flag received|No status received|Stream removed$|Received unexpected EOS|Stream closed"
)
# Failures before a request is sent, and their reasons in plain words.
_CONNECTING = (
    (re.compile(r"HTTP proxy returned response code (\d+)"), r"the proxy answered HTTP \1"),
    (re.compile(r"Connection refused"), "connection refused: no server listens there; check the address"),
    (
        re.compile(r"http1\.x server|Failed parsing HTTP/2|Expected SETTINGS frame"),
        "another kind of server answered, such as HTTP/1, not a convvae server; check the port",
    ),
    (
        re.compile(r"WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|UNEXPECTED_MESSAGE"),
        "the server does not use TLS on this port; leave out tls=TLSConfig(), or check the port",
    ),
    (
        re.compile(r"CERTIFICATE_VERIFY_FAILED: ([^:]*)|(Hostname Verification Check failed)"),
        r"the server's certificate is not trusted; check root_certificates= and server_name=",
    ),
    (
        re.compile(r"errors resolving|lookup (?:error|failed)|[Nn]ame (?:or service )?not (?:found|known)"),
        "the name is not found; check the address",
    ),
    (re.compile(r"No such file or directory"), "no server listens there: the socket does not exist"),
    (
        re.compile(r"unix:.*Permission denied"),
        "this user may not call through the socket; ask for its group, or for another --socket-mode",
    ),
    (
        re.compile(r"last error: .*(?:Socket closed|Connection reset|Broken pipe|handshake failed)"),
        "the connection was closed before an answer; if the server uses TLS, pass tls=TLSConfig()",
    ),
    (re.compile(r"recvmsg|Socket closed|Connection reset|GOAWAY"), "the connection ended during the request"),
)
# gRPC's form of an address in its messages, such as `ipv6:%5B::1%5D:50051: `.
_ADDRESS = re.compile(r"\b(?:ipv4|ipv6|unix):\S+: ")
_PREFIX = re.compile(r"^.*last error: (?:[A-Z_]+: )?")


@dataclass(frozen=True, slots=True)
class ConnectionFault:
    """A failure between the client and the server."""

    kind: type[ConvvaeError]
    reason: str


def find_connection_fault(
    code: grpc.StatusCode, details: str, target: str, *, answered: bool
) -> ConnectionFault | None:
    """Return the fault of the connection behind a status, or None if a convvae server gave the status.

    Args:
        code: The status.
        details: The message of the status, in one line.
        target: The target of the request.
        answered: Whether the status has metadata of a convvae server.
    """
    if answered or code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK):
        return None
    kind: type[ConvvaeError] = errors.Unavailable
    between = "a proxy or another program between answered, not the server: "
    if found := _RESET.search(details):
        number = int(found[1])
        # A server that stops resets requests with two of the codes too.
        who = "the request was reset" if number in (7, 8) else f"{between}it reset the request"
        reason = f"{who} with {_RESETS.get(number, number)}"
    elif found := _HTTP_STATUS.search(details):
        kind = _HTTP_CLASSES.get(int(found[1]), kind)
        reason = f"{between}HTTP {found[1]}"
    elif code is grpc.StatusCode.UNKNOWN and (not details or _NO_TRAILERS.search(details)):
        reason = f"{between}the answer has no gRPC status, as a web page has none"
    elif code is grpc.StatusCode.UNAVAILABLE:
        reason = next(
            (found.expand(words) for pattern, words in _CONNECTING if (found := pattern.search(details))),
            _ADDRESS.sub("", _PREFIX.sub("", details)),
        )
    elif code is grpc.StatusCode.UNIMPLEMENTED and details == "Method not found!":
        kind = errors.Unimplemented
        reason = "the server does not have this method: it is older than the client, or no convvae server"
    else:
        return None
    proxy = describe_proxy(target)
    return ConnectionFault(kind, f"{reason}; {proxy}" if proxy else reason)
