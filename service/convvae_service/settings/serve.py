"""The server's settings as one frozen object.

A field `max_batch_rows` is the flag `--max-batch-rows`, the variable `CONVVAE_SERVE_MAX_BATCH_ROWS` and the
key `max_batch_rows` of the TOML file that `--config` or `CONVVAE_SERVE_CONFIG` names. Flags override
variables, and variables override the file. Unknown keys are errors in all three.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from convvae_service.engine.arena import ArenaUse
from convvae_service.settings.environment import ENV_PREFIX
from convvae_service.settings.precision_policy import PrecisionPolicies, parse_precision_policies
from convvae_service.settings.rules import check_limits, check_security
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
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        nested_model_default_partial_update=False,
    )

    models: Path = Field(
        description="Serve this model repository: a folder ROOT/MODEL/VERSION/, or one of the folders in it."
    )
    model_name: NewModelName = Field(
        "", description="Serve the only model under this name too, beside the one in its manifest."
    )
    address: Addresses = Field(
        ("127.0.0.1:50051",),
        description="Listen at this HOST:PORT or unix:PATH for gRPC. Port 0 takes a free port. This"
        " may be repeated.",
    )
    socket_mode: SocketMode = Field(
        "660", description="Give Unix sockets these permissions, in octal. Who may write there may call."
    )
    metrics_address: MetricsAddress = Field(
        "127.0.0.1:9464", description="Serve the Prometheus metrics at this HOST:PORT. 'off' serves none."
    )
    front: Literal["auto", "native", "grpcio"] = Field(
        "auto",
        description="Read calls from the network by this front. native takes less processor time and"
        " trusts its callers, grpcio keeps every limit. auto takes native on loopback if it is"
        " installed and no setting needs grpcio.",
    )
    serve: PinnedVersions = Field(
        (),
        description="Serve this version instead of the model's highest one. This may be repeated.",
    )
    versions: VersionWords = Field(
        ("latest:1",),
        description="Load these versions: latest:N, all or VERSION for every model, or MODEL= followed by"
        " one of these for one model. This may be repeated.",
    )
    watch: bool = Field(
        False, description="Follow the repository: load new versions and unload removed ones."
    )
    watch_interval_s: float = Field(
        10.0,
        ge=0.05,
        le=86400,
        description="With --watch, scan the repository after each of these numbers of seconds.",
    )
    load_timeout_s: float = Field(
        60.0,
        gt=0,
        le=86400,
        description="Load and warm a version in at most this number of seconds, and try it before"
        " that in as many.",
    )
    max_load_bytes: int = Field(
        1024 * MIB,
        ge=256 * MIB,
        le=2**50,
        description="Let the process that tries a version before this one loads it have at most this"
        " number of bytes.",
    )
    device: Device = Field(
        "auto",
        description="Compute on this device: auto, cpu, cuda or cuda:N. auto takes a GPU if there is one.",
    )
    precision: PrecisionWords = Field(
        ("auto",),
        description="Run these graphs: auto, fp32, fp16 or int8 for every model, or MODEL= followed by"
        " one of these for one model. auto takes fp32 if the bundle has it. This may be"
        " repeated.",
    )
    lanes: int = Field(
        0,
        ge=0,
        le=64,
        description="Run this number of batches at the same time. 0 is one for each available CPU, 8 at"
        " most, or one on a GPU.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description=("Use this number of threads for a batch. 0 divides the available CPUs among the lanes."),
    )
    arena: ArenaUse = Field(
        "keep",
        description="Keep the memory of a graph on the CPU between batches, or return it to the"
        " system (off).",
    )
    max_gpu_arena_bytes: int = Field(
        0,
        ge=0,
        le=2**50,
        description="Let one graph have at most this number of bytes for batches on a GPU. 0 sets no limit.",
    )
    max_batch_rows: int = Field(
        64, ge=1, le=65536, description="Put at most this number of rows into one batch."
    )
    max_queue_delay_us: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Let an idle lane wait this number of microseconds for a batch to fill.",
    )
    max_rows_per_call: int = Field(
        1024, ge=1, le=1_000_000, description="Take at most this number of rows in one call."
    )
    max_message_bytes: int = Field(
        64 * MIB,
        ge=65536,
        le=1024 * MIB,
        description="Take and send at most this number of bytes in one request or reply.",
    )
    request_compression: Literal["off", "gzip"] = Field(
        "off",
        description="Refuse requests in gzip (off), or take them (gzip). The native front always takes them.",
    )
    max_pixels_per_file: int = Field(
        32_000_000,
        ge=64,
        le=178_000_000,
        description="Take image files of at most this number of pixels, which is checked before they"
        " are decoded.",
    )
    max_queued_rows: int = Field(
        8192, ge=1, le=2**40, description="Admit at most this number of rows that are not yet answered."
    )
    max_pending_bytes: int = Field(
        256 * MIB,
        ge=65536,
        le=2**50,
        description="Hold at most this number of bytes for all calls: requests from their arrival on,"
        " results, and replies until they are sent.",
    )
    max_call_s: float = Field(
        60.0,
        gt=0,
        le=86400,
        description="End a call after this number of seconds. A caller may set a shorter deadline.",
    )
    max_stream_idle_s: float = Field(
        0.0,
        ge=0,
        le=86400,
        description="End a stream that waits this number of seconds for its caller's next message. 0"
        " is max_call_s.",
    )
    max_connections: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Keep at most this number of connections at the same time. 0 sets no limit. This"
        " needs the front grpcio.",
    )
    max_calls_per_connection: int = Field(
        50,
        ge=1,
        le=1_000_000,
        description="Take at most this number of calls at once on one connection. Others wait.",
    )
    max_metadata_bytes: int = Field(
        16384,
        ge=1024,
        le=MIB,
        description="Take at most this number of bytes of a call's metadata, counting 32 for each key.",
    )
    min_ping_interval_s: float = Field(
        10.0,
        gt=0,
        le=86400,
        description="Let a caller send keepalive pings at least this number of seconds apart. This needs"
        " the front grpcio.",
    )
    keepalive_interval_s: float = Field(
        60.0,
        ge=0,
        le=86400,
        description="Ping a caller after this number of seconds of silence. 0 sends no pings.",
    )
    max_connection_age_s: float = Field(
        0.0,
        ge=0,
        le=86400,
        description="Make a caller connect again after this number of seconds. 0 sets no limit. This needs"
        " the front grpcio.",
    )
    max_connection_age_grace_s: float = Field(
        120.0,
        ge=0,
        le=86400,
        description="Give calls this number of seconds to finish on a connection that is too old.",
    )
    watchdog_timeout_s: float = Field(
        120.0,
        ge=0,
        le=86400,
        description="Set the health name 'liveness' to NOT_SERVING when a batch, an image file in work,"
        " the native front or the event loop has been stuck for this number of seconds. 0 sets"
        " no watchdog.",
    )
    drain_delay_s: float = Field(
        3.0,
        ge=0,
        le=600,
        description="Serve on for this number of seconds after SIGTERM, so that balancers can react.",
    )
    grace_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Give calls in flight this number of seconds to finish after the drain delay.",
    )
    open_inference: bool = Field(True, description="Serve the Open Inference Protocol on the same port.")
    reflection: bool = Field(True, description="Describe the services to tools such as grpcurl.")
    tls_certificate: Path | None = Field(
        None, description="Use TLS with the certificate chain in this PEM file."
    )
    tls_key: Path | None = Field(None, description="Use the private key of the certificate in this PEM file.")
    tls_client_ca: Path | None = Field(
        None, description="Take only callers with a certificate of an authority in this PEM file."
    )
    token_file: Path | None = Field(
        None, description="Take only calls with one of the bearer tokens in this file, one a line."
    )
    allow_insecure_tokens: bool = Field(
        False, description="Take tokens in plain text from other machines, on a trusted network."
    )
    tracing: bool = Field(
        False, description="Send traces by OTLP. This is also on if OTEL_EXPORTER_OTLP_ENDPOINT is set."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="Write the log to stderr in this format. auto is text on a terminal, otherwise json.",
    )
    access_log_sample: float = Field(
        1.0, ge=0, le=1, description="Log this share of the calls with status OK."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Log from this level on."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_limits(
            max_rows_per_call=self.max_rows_per_call,
            max_queued_rows=self.max_queued_rows,
            max_message_bytes=self.max_message_bytes,
            max_pending_bytes=self.max_pending_bytes,
        )
        check_security(
            address=self.address,
            tls_certificate=self.tls_certificate,
            tls_key=self.tls_key,
            tls_client_ca=self.tls_client_ca,
            token_file=self.token_file,
            allow_insecure_tokens=self.allow_insecure_tokens,
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
