"""What gRPC allows a connection: its options for a server, from the settings."""

from convvae_service.settings.serve import ServeSettings

__all__ = ["server_options"]

# A message over the service's own limit must still reach the service, which then says what the limit is;
# gRPC's own answer is RESOURCE_EXHAUSTED, which callers read as "busy, retry".
_RECEIVE_FACTOR = 2
_MAX_INT32 = 2**31 - 1
# Pings that come too soon, after which a connection is closed.
_PING_STRIKES = 2
_KEEPALIVE_TIMEOUT_MS = 20_000
# Each has its headers and at most 64 KiB of its message in memory.
_MAX_PENDING_CALLS = 16_384


def server_options(settings: ServeSettings) -> list[tuple[str, int]]:
    """Return the options of a gRPC server."""
    options = [
        ("grpc.max_receive_message_length", min(_RECEIVE_FACTOR * settings.max_message_bytes, _MAX_INT32)),
        ("grpc.max_send_message_length", -1),
        # A second server on the port must fail, not share the port's connections.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        # Equal, since between the two gRPC refuses some calls and not others, by chance.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        # gRPC's own limit is 1,000 calls that wait for the event loop, given up or not; above it any may be
        # ended as CANCELLED. A storm of calls that give up would then lose those of callers who wait.
        ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING_CALLS),
        # gRPC's own intervals, 5 minutes and 2 hours without a call, cut off clients behind firewalls that
        # forget quiet connections sooner. The name of this one has no `recv` on either side.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(settings.min_ping_interval_s)),
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
    ]
    if settings.keepalive_interval_s:
        options += [
            ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive_interval_s)),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ]
    if settings.max_connections:
        options.append(("grpc.max_allowed_incoming_connections", settings.max_connections))
    if settings.max_connection_age_s:
        options += [
            ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age_s)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(settings.max_connection_age_grace_s)),
        ]
    return options


def _milliseconds(seconds: float) -> int:
    return max(1, round(1000 * seconds))
