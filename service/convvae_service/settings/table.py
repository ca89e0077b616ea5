"""The tables of settings in the documentation.

    python -m convvae_service.settings.table docs/operations.md

writes them into a page again, between two comments.
"""

import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from convvae.program.settings_page import write_tables
from convvae_service.settings.environment import ENV_PREFIX
from convvae_service.settings.numbers import allowed_numbers, number_text, unit_of
from convvae_service.settings.serve import ServeSettings

__all__ = ["GROUPS", "settings_tables"]

# The headings of the tables, and the settings below each.
GROUPS = {
    "Models": (
        *("models", "model_name", "serve", "versions", "precision"),
        *("watch", "watch_interval_s", "load_timeout_s", "max_load_bytes"),
    ),
    "Addresses": ("address", "socket_mode", "metrics_address", "front", "open_inference", "reflection"),
    "Batches": (
        *("device", "lanes", "threads", "arena", "max_gpu_arena_bytes"),
        *("max_batch_rows", "max_queue_delay_us"),
    ),
    "Calls": (
        *("max_rows_per_call", "max_message_bytes", "request_compression", "max_pixels_per_file"),
        *("max_queued_rows", "max_pending_bytes", "max_call_s", "max_stream_idle_s"),
    ),
    "Limits of connections": (
        *("max_connections", "max_calls_per_connection", "max_metadata_bytes", "min_ping_interval_s"),
        *("keepalive_interval_s", "max_connection_age_s", "max_connection_age_grace_s"),
    ),
    "Watchdog and stop": ("watchdog_timeout_s", "drain_delay_s", "grace_s"),
    "Certificates and tokens": (
        *("tls_certificate", "tls_key", "tls_client_ca", "token_file", "allow_insecure_tokens"),
    ),
    "Log and traces": ("log_format", "log_level", "access_log_sample", "tracing"),
}


def settings_tables() -> str:
    """Return a Markdown table for each group of settings, under a heading of its own."""
    return "\n".join(f"### {heading}\n\n{_table(names)}" for heading, names in GROUPS.items())


def _table(names: tuple[str, ...]) -> str:
    rows = ["| Setting | Variable | Unit | Default | Values | Meaning |", "|---|---|---|---|---|---|"]
    return "".join(f"{row}\n" for row in [*rows, *map(_row, names)])


def _row(name: str) -> str:
    field, unit = ServeSettings.model_fields[name], unit_of(name)
    columns = (
        f"`{name}`",
        f"`{ENV_PREFIX}{name.upper()}`",
        unit,
        "required" if field.is_required() else _value(field.default, unit),
        _values(name, field),
        (field.description or "").replace("<", r"\<"),
    )
    return f"| {' | '.join(columns)} |"


def _value(value: Any, unit: str) -> str:
    if value in (None, "", ()):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(f"`{word}`" for word in value)
    if isinstance(value, str):
        return f"`{value}`"
    return number_text(value, unit)


def _values(name: str, field: FieldInfo) -> str:
    kind = field.annotation
    if kind is bool:
        return "on, off"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    return allowed_numbers(name, field)


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]), settings_tables())
