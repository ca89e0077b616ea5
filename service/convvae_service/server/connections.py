"""gRPC's limits on connections and messages, from the settings."""

import resource

from convvae_service.server.compression import COMPRESSION_OPTIONS
from convvae_service.settings.serve import ServeSettings

__all__ = [
    "KEEPALIVE_TIMEOUT_MS",
    "connection_limit",
    "many_open_files",
    "open_file_limit",
    "receive_limit",
    "server_options",
]

# A message above the service's limit must still reach the service, which names the limit in its answer. gRPC
# would answer RESOURCE_EXHAUSTED, which callers take for a full queue.
_RECEIVE_FACTOR = 1.25
# Number of pings that may come too soon; the next one closes the connection.
_PING_STRIKES = 2
# Time for a caller to answer a ping.
KEEPALIVE_TIMEOUT_MS = 20_000
# Time for a new connection to encrypt and to send HTTP/2's preface; gRPC's own is two minutes.
_HANDSHAKE_TIMEOUT_MS = 10_000
# Time for a peer to acknowledge the server's settings; gRPC's own is 20 seconds or more.
_SETTINGS_TIMEOUT_MS = 5_000
# A waiting call has its headers and at most 64 KiB of its message in memory.
_MAX_PENDING_CALLS = 16_384

# Files that a server has open beside its connections: 22 on Linux without a call, with one model.
_OTHER_FILES = 24
# The same with readers of metrics, and files that are read.
_MAX_OTHER_FILES = 32


def open_file_limit() -> int | None:
    """Return the number of files that this process may have open, None if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def connection_limit(max_connections: int) -> int:
    """Return the number of connections to take, 0 for no limit.

    It is below `max_connections` if the process may not open so many files: a connection that is refused ends
    at once, and one that finds no free file waits.
    """
    files = open_file_limit()
    if files is None or (max_connections and max_connections + _OTHER_FILES <= files):
        return max_connections
    return max(1, files - _MAX_OTHER_FILES)


def many_open_files() -> int:
    """Return the number of open files that is nine tenths of what the process may have, 0 for no limit."""
    return 9 * (open_file_limit() or 0) // 10


def receive_limit(settings: ServeSettings) -> int:
    """Return the maximum bytes of a message that the service sees."""
    return int(_RECEIVE_FACTOR * settings.max_message_bytes)


def server_options(settings: ServeSettings, *, limits_connections: bool = True) -> list[tuple[str, int]]:
    """Return the options of a grpcio server, with `max_connections` or without any limit on connections."""
    options = [
        ("grpc.max_receive_message_length", receive_limit(settings)),
        ("grpc.max_send_message_length", -1),
        *COMPRESSION_OPTIONS,
        # The table of headers stays as large as HTTP/2 has it. nginx and HAProxy do not acknowledge a smaller
        # one in their header blocks, and gRPC would refuse all their calls but the first.
        ("grpc.http2.settings_timeout", _SETTINGS_TIMEOUT_MS),
        # A second server on the same port must fail. It must not share the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        # Otherwise calls that have ended count until gRPC has freed them, and calls of a caller that keeps to
        # the limit are reset.
        ("grpc.http.overload_protection", 0),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_TIMEOUT_MS),
        # Both are equal: gRPC refuses calls between the two limits at random.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        # By default 1,000 calls may wait for the event loop, and above that gRPC cancels any of them. A storm
        # of calls that expire would then cancel calls whose callers still wait.
        ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING_CALLS),
        # By default a client may ping every 5 minutes, or every 2 hours without a call. Firewalls forget a
        # quiet connection sooner. The option is `min_ping_interval_without_data_ms`, without `recv`, on both
        # sides.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(settings.min_ping_interval_s)),
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
    ]
    if settings.keepalive_interval_s:
        options += [
            ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive_interval_s)),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ]
    if limits_connections and (limit := connection_limit(settings.max_connections)):
        options.append(("grpc.max_allowed_incoming_connections", limit))
    if settings.max_connection_age_s:
        options += [
            ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age_s)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(settings.max_connection_age_grace_s)),
        ]
    return options


def _milliseconds(seconds: float) -> int:
    return max(1, round(1000 * seconds))
