"""The server's settings: one frozen object from flags, environment and a file, in this order of precedence.

A field `max_batch_rows` is the flag `--max-batch-rows`, the variable `CONVVAE_SERVE_MAX_BATCH_ROWS` and the
key `max_batch_rows` of a TOML file named by `--config` or `CONVVAE_SERVE_CONFIG`. Unknown keys are errors in
all three.
"""

import argparse
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from convvae.addresses import is_loopback
from convvae_service.engine.arena import ArenaUse
from convvae_service.errors import StartupError
from convvae_service.settings.environment import (
    CONFIG_VARIABLE,
    ENV_PREFIX,
    nearest,
    refuse_unknown_variables,
)
from convvae_service.settings.policies import (
    PrecisionPolicies,
    VersionPolicies,
    parse_policies,
    parse_precisions,
)

__all__ = ["ServeSettings", "load_settings"]

MIB = 1 << 20


class ServeSettings(BaseSettings):
    """Everything that the server can be told."""

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

    models: Path = Field(description="model repository: a folder ROOT/<model>/<version>/")
    address: str = Field("127.0.0.1:50051", description="HOST:PORT to serve gRPC on; port 0 takes a free one")
    metrics_address: str = Field(
        "127.0.0.1:9464", description="HOST:PORT of the Prometheus metrics; 'off' serves none"
    )
    serve: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="MODEL=VERSION to serve instead of the model's highest version; may be repeated"
    )
    versions: Annotated[tuple[str, ...], NoDecode] = Field(
        ("latest:1",),
        description="versions to load: latest:N, all or VERSION for every model, or MODEL= and one of these"
        " for that one; may be repeated",
    )
    watch: bool = Field(
        False, description="follow the repository: load what is published, unload what has gone"
    )
    watch_interval_s: float = Field(
        10.0, ge=0.05, le=86400, description="seconds between two looks at the repository, with watch"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; auto takes a GPU where there is one")
    precision: Annotated[tuple[str, ...], NoDecode] = Field(
        ("auto",),
        description="graphs to run: auto, fp32, fp16 or int8 for every model, or MODEL= and one of these for"
        " that one; auto takes fp32 where the bundle has it; may be repeated",
    )
    lanes: int = Field(1, ge=1, le=64, description="batches that run at the same time")
    threads: int = Field(
        0, ge=0, le=1024, description="threads of one run; 0 shares the available CPUs among the lanes"
    )
    arena: ArenaUse = Field(
        "keep",
        description="memory of a graph's runs: keep it for the next, shrink (give it back after each run), or"
        " off (on the CPU, no arena at all)",
    )
    max_gpu_arena_bytes: int = Field(
        0, ge=0, le=2**50, description="most bytes of one graph's memory for runs on a GPU; 0 for no limit"
    )
    max_batch_rows: int = Field(64, ge=1, le=65536, description="most rows in one batch")
    max_queue_delay_us: int = Field(
        0, ge=0, le=10_000_000, description="microseconds an idle lane waits for a batch to fill"
    )
    max_rows_per_call: int = Field(1024, ge=1, le=1_000_000, description="most rows in one call")
    max_message_bytes: int = Field(
        64 * MIB, ge=65536, le=1024 * MIB, description="most bytes in one request or reply"
    )
    max_pixels_per_file: int = Field(
        32_000_000,
        ge=64,
        le=178_000_000,
        description="most pixels in an image file, checked before it is decoded",
    )
    max_queued_rows: int = Field(8192, ge=1, le=2**40, description="most rows admitted and not yet answered")
    max_queued_bytes: int = Field(
        512 * MIB,
        ge=65536,
        le=2**50,
        description="most bytes of inputs and results of calls admitted and not yet answered",
    )
    max_call_s: float = Field(
        60.0, gt=0, le=86400, description="most seconds for one call; a shorter deadline of the caller holds"
    )
    max_connections: int = Field(
        1000, ge=0, le=1_000_000, description="most connections at a time; 0 for no limit"
    )
    max_calls_per_connection: int = Field(
        1000, ge=1, le=1_000_000, description="most calls at a time on one connection; further ones wait"
    )
    max_metadata_bytes: int = Field(
        16384, ge=1024, le=MIB, description="most bytes of a call's metadata, 32 for each key among them"
    )
    min_ping_interval_s: float = Field(
        10.0, gt=0, le=86400, description="least seconds between two keepalive pings of a caller"
    )
    keepalive_interval_s: float = Field(
        60.0,
        ge=0,
        le=86400,
        description="seconds of silence until a caller is asked whether it is there; 0: never",
    )
    max_connection_age_s: float = Field(
        0.0, ge=0, le=86400, description="seconds after which callers must connect again; 0 for no limit"
    )
    max_connection_age_grace_s: float = Field(
        120.0, ge=0, le=86400, description="seconds for calls to finish on a connection that is too old"
    )
    watchdog_timeout_s: float = Field(
        120.0,
        ge=0,
        le=86400,
        description="seconds after which a batch that still runs, or a server that stands still, turns the"
        " health name 'liveness'; 0 for no watchdog",
    )
    drain_delay_s: float = Field(
        3.0, ge=0, le=600, description="seconds to keep serving after SIGTERM, while balancers turn away"
    )
    grace_s: float = Field(
        30.0, ge=0, le=3600, description="seconds for calls in flight to finish after the drain delay"
    )
    open_inference: bool = Field(True, description="answer the Open Inference Protocol too, on the same port")
    reflection: bool = Field(True, description="describe the service to tools such as grpcurl")
    tls_certificate: Path | None = Field(None, description="PEM file of the server's certificate and chain")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of authorities; callers must present a certificate of theirs"
    )
    token_file: Path | None = Field(
        None, description="file of bearer tokens, one a line; a call must bring one of them"
    )
    allow_insecure_tokens: bool = Field(
        False, description="accept tokens in plain text from other machines, behind a trusted network"
    )
    tracing: bool = Field(
        False, description="send traces by OTLP; also on where OTEL_EXPORTER_OTLP_ENDPOINT is set"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="form of the log on stderr; auto is text on a terminal, else json"
    )
    access_log_sample: float = Field(
        1.0, ge=0, le=1, description="share of the calls answered with OK that get a line in the log"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level to log")

    @field_validator("serve", "versions", "precision", mode="before")
    @classmethod
    def _split_words(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, dict):
            word = "mnist=int8" if info.field_name == "precision" else "mnist=2"
            raise ValueError(f'is a list, as in {info.field_name} = ["{word}"]')
        return value

    @field_validator("serve")
    @classmethod
    def _check_serve(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            if not re.fullmatch(r"[^=]+=[1-9][0-9]{0,17}", part):
                raise ValueError(f"{part!r} is not MODEL=VERSION, as in mnist=2")
        names = [part.partition("=")[0] for part in value]
        if len(set(names)) != len(names):
            raise ValueError("names a model twice")
        return value

    @field_validator("versions")
    @classmethod
    def _check_versions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_policies(value)
        return value

    @field_validator("precision")
    @classmethod
    def _check_precision(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_precisions(value)
        return value

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError(f"{value!r} is none of auto, cpu, cuda, cuda:N")
        return value

    @field_validator("metrics_address")
    @classmethod
    def _check_metrics_address(cls, value: str) -> str:
        return value if value == "off" else cls._check_address(value)

    @field_validator("address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or host == "unix" or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{value!r} is not HOST:PORT, as in 127.0.0.1:50051")
        return value

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.max_rows_per_call > self.max_queued_rows:
            raise ValueError(
                f"max_queued_rows ({self.max_queued_rows}) must not be below max_rows_per_call"
                f" ({self.max_rows_per_call}), or the largest calls could never be admitted"
            )
        # A call's message, its images and its results.
        if 4 * self.max_message_bytes > self.max_queued_bytes:
            raise ValueError(
                f"max_queued_bytes ({self.max_queued_bytes}) must not be below 4 x max_message_bytes"
                f" ({self.max_message_bytes}), or the largest calls could never be admitted"
            )
        return self

    @model_validator(mode="after")
    def _check_security(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: give both or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        plain = self.tls_certificate is None and not self.allow_insecure_tokens
        if self.token_file and plain and not is_loopback(self.address):
            raise ValueError(
                f"tokens would travel in plain text to {self.address}: give tls_certificate and tls_key, or"
                " allow_insecure_tokens when the network is trusted"
            )
        return self

    @property
    def pinned_versions(self) -> dict[str, int]:
        """`serve` as a mapping from model to version."""
        return {name: int(version) for name, _, version in (part.partition("=") for part in self.serve)}

    @property
    def version_policies(self) -> VersionPolicies:
        """`versions` as policies by model."""
        return parse_policies(self.versions)

    @property
    def precision_policies(self) -> PrecisionPolicies:
        """`precision` as precisions by model."""
        return parse_precisions(self.precision)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment and the file that `toml_file` names; .env and secret files are left out."""
        del dotenv_settings, file_secret_settings
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def load_settings(arguments: Sequence[str] = ()) -> ServeSettings:
    """Return the settings from command-line `arguments`, the environment and the file that either names.

    Raises:
        StartupError: A key is unknown or a value is not accepted; the message names each.
        SystemExit: `--help` was asked for, or the flags cannot be parsed.
    """
    refuse_unknown_variables(ServeSettings.model_fields)
    config_flag = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    config_flag.add_argument("--config")
    known, rest = config_flag.parse_known_args(arguments)
    file = known.config or os.environ.get(CONFIG_VARIABLE)
    sources = _sources_with_file(Path(file)) if file else ServeSettings
    try:
        return sources(_cli_settings_source=_flags(sources, rest))  # type: ignore[call-arg]
    except ValidationError as error:
        raise StartupError("; ".join(_describe(item) for item in error.errors())) from None
    except SettingsError as error:
        raise StartupError(str(error)) from None


def _flags(settings: type[ServeSettings], arguments: Sequence[str]) -> CliSettingsSource[ServeSettings]:
    parser = argparse.ArgumentParser(
        prog="convvae-serve run",
        allow_abbrev=False,
        description="Serve the models of a repository over gRPC.",
        epilog=f"Each flag is also a variable, as in {ENV_PREFIX}MAX_BATCH_ROWS,"
        " and a key of the --config file.",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
    return CliSettingsSource(settings, root_parser=parser, cli_parse_args=list(arguments))


def _sources_with_file(path: Path) -> type[ServeSettings]:
    try:
        with path.open("rb") as file:
            keys = tomllib.load(file)
    except OSError as error:
        raise StartupError(f"config file {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StartupError(f"config file {str(path)!r} is not TOML: {error}") from None
    for key in keys:
        if key not in ServeSettings.model_fields:
            hint = nearest(key, ServeSettings.model_fields)
            raise StartupError(f"config file {str(path)!r} has the unknown key {key!r}{hint}")

    class WithFile(ServeSettings):
        model_config = SettingsConfigDict(toml_file=path)

    return WithFile


def _describe(item: object) -> str:
    assert isinstance(item, dict)
    key = ".".join(str(part) for part in item["loc"]).replace("_", "-")
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"--{key} is required"
    return f"--{key}: {message}" if key else message
