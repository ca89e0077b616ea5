"""The connection: options, credentials and methods, the same for both clients."""

import ipaddress
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc
from google.protobuf import wrappers_pb2

from convvae.config import ClientConfig
from convvae.errors import InvalidInput
from convvae.v1 import vae_pb2_grpc

__all__ = ["HEALTH_PATH", "Connection", "distribution_version", "is_loopback", "open_methods"]

HEALTH_PATH = "/grpc.health.v1.Health/Check"

_COMPRESSION = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}

_OPTIONS: list[tuple[str, str | int]] = [
    # The client keeps its messages under the limits that GetModel states; gRPC's own 4 MiB would come first.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # All retries are decided in `convvae.retry`, where the budget counts them: no second set below it, and
    # none from a service configuration that DNS brings.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A name with several addresses is several servers.
    ("grpc.lb_policy_name", "round_robin"),
    # gRPC refuses every call while it waits to connect again, 1 s and up to 120 s by default: far longer than
    # our retries wait.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A connection that a firewall has dropped is noticed while a call waits on it. No pings without calls: a
    # server with gRPC's defaults closes connections that ping more often than every 5 minutes.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
]

# gRPC watches the overall health of every address, and sends calls to those that serve.
_FOLLOW_HEALTH = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
)


class Connection:
    """What a channel is made of, checked before anything is opened."""

    def __init__(self, config: ClientConfig) -> None:
        """Check the configuration.

        Raises:
            InvalidInput: The token would travel in plain text to another machine.
        """
        plain = config.tls is None
        if config.token and plain and not config.allow_insecure_token and not is_loopback(config.target):
            raise InvalidInput(
                f"the token would travel unencrypted to {config.target}: pass tls=TLSConfig(), "
                "or allow_insecure_token=True when the network in between is trusted"
            )
        self.target = config.target
        self.compression = _COMPRESSION[config.compression] if config.compression else None
        self.metadata: tuple[tuple[str, str], ...] = (
            (("authorization", f"Bearer {config.token}"),) if config.token else ()
        )
        self.options = [
            *_OPTIONS,
            # A proxy cannot reach this machine's own loopback, and must not see a token meant for it.
            ("grpc.enable_http_proxy", 0 if is_loopback(config.target) else 1),
            ("grpc.primary_user_agent", f"convvae/{distribution_version()}"),
        ]
        if config.follow_health:
            self.options.append(("grpc.service_config", _FOLLOW_HEALTH))
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
        """Return a channel of `library`: `grpc` or `grpc.aio`."""
        if self.credentials is None:
            return library.insecure_channel(self.target, self.options, compression=self.compression)
        return library.secure_channel(
            self.target, self.credentials, self.options, compression=self.compression
        )


def open_methods(channel: Any) -> dict[str, Any]:
    """Return what to call for each RPC, by its name."""
    methods = dict(vars(vae_pb2_grpc.VaeServiceStub(channel)))
    methods["Check"] = channel.unary_unary(
        HEALTH_PATH,
        request_serializer=wrappers_pb2.StringValue.SerializeToString,
        response_deserializer=wrappers_pb2.Int32Value.FromString,
    )
    return methods


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


def distribution_version() -> str:
    """Return the installed version of this package."""
    try:
        return version("convvae")
    except PackageNotFoundError:
        return "unknown"
