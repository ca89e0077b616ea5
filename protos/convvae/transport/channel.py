"""The gRPC channel of a client: options, credentials and methods, the same for both clients."""

import json
from typing import Any

import grpc
from google.protobuf import wrappers_pb2

from convvae.addresses import first_of_several, is_loopback
from convvae.config import ClientConfig
from convvae.errors import InvalidInput
from convvae.transport.forks import FORKS
from convvae.v1 import vae_pb2_grpc
from convvae.version import distribution_version

__all__ = ["HEALTH_PATH", "ChannelFactory", "open_methods"]

HEALTH_PATH = "/grpc.health.v1.Health/Check"

_COMPRESSION = {"gzip": grpc.Compression.Gzip}

_OPTIONS: list[tuple[str, str | int]] = [
    # The client keeps its messages under the limits that GetModel reports. gRPC's default of 4 MiB is lower.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # `convvae.transport.retry` decides all retries, because its budget counts them. gRPC must not add its
    # own, neither by default nor from a service configuration in DNS.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A name with several addresses stands for several servers.
    ("grpc.lb_policy_name", "round_robin"),
    # gRPC refuses every call while it waits to connect again: by default 1 s, growing to 120 s. The client's
    # retries wait much less.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Pings detect a connection that a firewall has dropped while a call waits on it. There are no pings
    # without calls: a server with gRPC's defaults closes connections that ping more often than every 5 min.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
]

# gRPC watches the overall health of every address and sends calls only to servers that serve.
_FOLLOW_HEALTH = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
)


class ChannelFactory:
    """The settings of a client's channels, checked before a channel is opened."""

    def __init__(self, config: ClientConfig) -> None:
        """Check the configuration.

        Raises:
            InvalidInput: The token would travel in plain text to another machine.
        """
        plain = config.tls is None
        if config.token and plain and not config.allow_insecure_token and not is_loopback(config.target):
            raise InvalidInput(
                f"the token would travel unencrypted to {config.target}: pass tls=TLSConfig(), "
                "or allow_insecure_token=True if you trust the network"
            )
        self.target = config.target
        self.compression = _COMPRESSION[config.compression] if config.compression else None
        self.metadata: tuple[tuple[str, str], ...] = (
            (("authorization", f"Bearer {config.token}"),) if config.token else ()
        )
        self.options = [
            *_OPTIONS,
            # A proxy cannot reach this machine's loopback, and must not see a token for it.
            ("grpc.enable_http_proxy", 0 if is_loopback(config.target) else 1),
            ("grpc.primary_user_agent", f"convvae/{distribution_version()}"),
        ]
        if config.follow_health:
            self.options.append(("grpc.service_config", _FOLLOW_HEALTH))
        if plain and (address := first_of_several(config.target)):
            # gRPC would send the whole list as the name of the server. That is no host name, and servers in
            # other languages reset such a call.
            self.options.append(("grpc.default_authority", address))
        self.credentials: grpc.ChannelCredentials | None = None
        if config.tls is not None:
            self.credentials = grpc.ssl_channel_credentials(
                root_certificates=config.tls.root_certificates,
                private_key=config.tls.private_key,
                certificate_chain=config.tls.certificate_chain,
            )
            if config.tls.server_name:
                self.options.append(("grpc.ssl_target_name_override", config.tls.server_name))

    def open(self, library: Any) -> Any:
        """Open a channel of `library`, which is `grpc` or `grpc.aio`."""
        if self.credentials is None:
            channel = library.insecure_channel(self.target, self.options, compression=self.compression)
        else:
            channel = library.secure_channel(
                self.target, self.credentials, self.options, compression=self.compression
            )
        FORKS.add(channel)
        return channel


def open_methods(channel: Any) -> dict[str, Any]:
    """Return the callable of each RPC on `channel`, by the name of the RPC."""
    methods = dict(vars(vae_pb2_grpc.VaeServiceStub(channel)))
    methods["Check"] = channel.unary_unary(
        HEALTH_PATH,
        request_serializer=wrappers_pb2.StringValue.SerializeToString,
        response_deserializer=wrappers_pb2.Int32Value.FromString,
    )
    return methods
