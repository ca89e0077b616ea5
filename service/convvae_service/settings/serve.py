"""The server's settings as one frozen object.

A field `max_batch_rows` is the flag `--max-batch-rows`, the variable `CONVVAE_SERVE_MAX_BATCH_ROWS` and the
key `max_batch_rows` of the TOML file that `--config` or `CONVVAE_SERVE_CONFIG` names. Flags override
variables, and variables override the file. Unknown keys are errors in all three.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from convvae.addresses import is_loopback
from convvae_service.engine.arena import ArenaUse
from convvae_service.settings.environment import ENV_PREFIX
from convvae_service.settings.precision_policy import PrecisionPolicies, parse_precision_policies
from convvae_service.settings.values import (
    Addresses,
    Device,
    MetricsAddress,
    NewModelName,
    PinnedVersions,
    PrecisionWords,
    SocketMode,
    VersionWords,
)
from convvae_service.settings.version_policy import VersionPolicies, parse_version_policies

__all__ = ["ServeSettings"]

MIB = 1 << 20


class ServeSettings(BaseSettings):
    """All settings of the server."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        cli_kebab_case=True,
        cli_prog_name="convvae-serve run",
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        nested_model_default_partial_update=False,
    )

    models: Path = Field(
        description="model repository: a folder ROOT/<model>/<version>/, or one of the folders in it"
    )
    model_name: NewModelName = Field(
        "", description="name of the only model for callers, beside the one in its manifest"
    )
    address: Addresses = Field(
        ("127.0.0.1:50051",),
        description="HOST:PORT or unix:PATH of the gRPC server; port 0 takes a free port; repeatable",
    )
    socket_mode: SocketMode = Field(
        "660", description="permissions of Unix sockets in octal: who may write there may call"
    )
    metrics_address: MetricsAddress = Field(
        "127.0.0.1:9464", description="HOST:PORT of the Prometheus metrics; 'off' serves none"
    )
    front: Literal["auto", "native", "grpcio"] = Field(
        "auto",
        description="what reads calls from the network: native takes less processor time and trusts its"
        " callers, grpcio keeps every limit; auto takes native on loopback if it is installed and no setting"
        " needs grpcio",
    )
    serve: PinnedVersions = Field(
        (), description="MODEL=VERSION to serve instead of the model's highest version; repeatable"
    )
    versions: VersionWords = Field(
        ("latest:1",),
        description="versions to load: latest:N, all or VERSION for every model, or MODEL= followed by one of"
        " these for one model; repeatable",
    )
    watch: bool = Field(False, description="follow the repository: load new versions and unload removed ones")
    watch_interval_s: float = Field(
        10.0, ge=0.05, le=86400, description="seconds between two scans of the repository, with --watch"
    )
    load_timeout_s: float = Field(
        60.0,
        gt=0,
        le=86400,
        description="maximum seconds to load and warm a version, and for the trial of it before that",
    )
    max_load_bytes: int = Field(
        1024 * MIB,
        ge=256 * MIB,
        le=2**50,
        description="maximum bytes of the process that tries a version before this one loads it",
    )
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one")
    precision: PrecisionWords = Field(
        ("auto",),
        description="graphs to run: auto, fp32, fp16 or int8 for every model, or MODEL= followed by one of"
        " these for one model; auto takes fp32 if the bundle has it; repeatable",
    )
    lanes: int = Field(
        0,
        ge=0,
        le=64,
        description="batches that run at the same time; 0: one for each available CPU, 8 at most, or one on a"
        " GPU",
    )
    threads: int = Field(
        0, ge=0, le=1024, description="threads per batch; 0 divides the available CPUs among the lanes"
    )
    arena: ArenaUse = Field(
        "keep",
        description="memory of a graph on the CPU between batches: keep it, or off (return it to the system)",
    )
    max_gpu_arena_bytes: int = Field(
        0, ge=0, le=2**50, description="maximum bytes of one graph for batches on a GPU; 0: no limit"
    )
    max_batch_rows: int = Field(64, ge=1, le=65536, description="maximum number of rows in one batch")
    max_queue_delay_us: int = Field(
        0, ge=0, le=10_000_000, description="microseconds that an idle lane waits for a batch to fill"
    )
    max_rows_per_call: int = Field(1024, ge=1, le=1_000_000, description="maximum number of rows in one call")
    max_message_bytes: int = Field(
        64 * MIB, ge=65536, le=1024 * MIB, description="maximum bytes in one request or reply"
    )
    request_compression: Literal["off", "gzip"] = Field(
        "off",
        description="requests in gzip: off refuses them, gzip takes them; the native front always takes them",
    )
    max_pixels_per_file: int = Field(
        32_000_000,
        ge=64,
        le=178_000_000,
        description="maximum number of pixels in an image file, checked before it is decoded",
    )
    max_queued_rows: int = Field(
        8192, ge=1, le=2**40, description="maximum number of rows that are admitted and not yet answered"
    )
    max_pending_bytes: int = Field(
        256 * MIB,
        ge=65536,
        le=2**50,
        description="maximum bytes that all calls hold: requests from their arrival on, results, and replies"
        " until they are sent",
    )
    max_call_s: float = Field(
        60.0, gt=0, le=86400, description="maximum seconds for one call; a caller may set a shorter deadline"
    )
    max_stream_idle_s: float = Field(
        0.0,
        ge=0,
        le=86400,
        description="maximum seconds that a stream waits for its caller's next message; 0: max_call_s",
    )
    max_connections: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="maximum number of connections at the same time; 0: no limit; needs the front grpcio",
    )
    max_calls_per_connection: int = Field(
        50, ge=1, le=1_000_000, description="maximum number of calls at once on one connection; others wait"
    )
    max_metadata_bytes: int = Field(
        16384, ge=1024, le=MIB, description="maximum bytes of a call's metadata, counting 32 for each key"
    )
    min_ping_interval_s: float = Field(
        10.0,
        gt=0,
        le=86400,
        description="minimum seconds between two keepalive pings of a caller; needs the front grpcio",
    )
    keepalive_interval_s: float = Field(
        60.0,
        ge=0,
        le=86400,
        description="seconds of silence before the server pings a caller; 0: no pings",
    )
    max_connection_age_s: float = Field(
        0.0,
        ge=0,
        le=86400,
        description="seconds after which a caller must connect again; 0: no limit; needs the front grpcio",
    )
    max_connection_age_grace_s: float = Field(
        120.0, ge=0, le=86400, description="seconds for calls to finish on a connection that is too old"
    )
    watchdog_timeout_s: float = Field(
        120.0,
        ge=0,
        le=86400,
        description="seconds after which a batch or an image file in work, a blocked native front or a"
        " blocked event loop sets the health name 'liveness' to NOT_SERVING; 0: no watchdog",
    )
    drain_delay_s: float = Field(
        3.0, ge=0, le=600, description="seconds to keep serving after SIGTERM, so that balancers can react"
    )
    grace_s: float = Field(
        30.0, ge=0, le=3600, description="seconds for calls in flight to finish after the drain delay"
    )
    open_inference: bool = Field(True, description="serve the Open Inference Protocol on the same port")
    reflection: bool = Field(True, description="describe the services to tools such as grpcurl")
    tls_certificate: Path | None = Field(None, description="PEM file with the server's certificate chain")
    tls_key: Path | None = Field(None, description="PEM file with the certificate's private key")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of authorities; callers must present a certificate of one of them"
    )
    token_file: Path | None = Field(
        None, description="file of bearer tokens, one per line; every call must carry one of them"
    )
    allow_insecure_tokens: bool = Field(
        False, description="accept tokens in plain text from other machines, on a trusted network"
    )
    tracing: bool = Field(
        False, description="send traces by OTLP; also on if OTEL_EXPORTER_OTLP_ENDPOINT is set"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="format of the log on stderr; auto is text on a terminal, otherwise json"
    )
    access_log_sample: float = Field(
        1.0, ge=0, le=1, description="share of the calls with status OK that are logged"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level to log")

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.max_rows_per_call > self.max_queued_rows:
            raise ValueError(
                f"--max-queued-rows ({self.max_queued_rows}) must be at least --max-rows-per-call"
                f" ({self.max_rows_per_call}), otherwise the largest calls are never admitted"
            )
        # A call holds its request twice (bytes and message), and its results.
        if 4 * self.max_message_bytes > self.max_pending_bytes:
            raise ValueError(
                f"--max-pending-bytes ({self.max_pending_bytes}) must be at least 4 x --max-message-bytes"
                f" ({self.max_message_bytes}), otherwise the largest calls are never admitted"
            )
        return self

    @model_validator(mode="after")
    def _check_security(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("--tls-certificate and --tls-key belong together: give both or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("--tls-client-ca needs --tls-certificate and --tls-key")
        plain = self.tls_certificate is None and not self.allow_insecure_tokens
        exposed = [address for address in self.address if not is_loopback(address)]
        if self.token_file and plain and exposed:
            raise ValueError(
                f"tokens would travel in plain text to {exposed[0]}: give --tls-certificate and --tls-key,"
                " or --allow-insecure-tokens if you trust the network"
            )
        return self

    @property
    def socket_permissions(self) -> int:
        """`socket_mode` as a number."""
        return int(self.socket_mode, 8)

    @property
    def pinned_versions(self) -> dict[str, int]:
        """`serve` as a mapping from model to version."""
        return {name: int(version) for name, _, version in (word.partition("=") for word in self.serve)}

    @property
    def version_policies(self) -> VersionPolicies:
        """`versions` as policies by model."""
        return parse_version_policies(self.versions)

    @property
    def precision_policies(self) -> PrecisionPolicies:
        """`precision` as precisions by model."""
        return parse_precision_policies(self.precision)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, but no .env file and no secret files."""
        del settings_cls, dotenv_settings, file_secret_settings
        return (init_settings, env_settings)
