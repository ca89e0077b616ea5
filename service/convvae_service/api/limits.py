"""Limits on one call to one model."""

from dataclasses import dataclass

from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.settings.serve import ServeSettings

__all__ = ["CallLimits", "call_limits", "row_bytes", "rows_per_message"]

# Room in a message for everything that is not rows.
_MESSAGE_OVERHEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """Limits on one call to one model."""

    max_rows: int
    max_message_bytes: int
    max_pixels_per_file: int


def call_limits(settings: ServeSettings, served: LoadedVersion) -> CallLimits:
    """Return the limits on one call to this version: request and reply must each fit into a message.

    `max_rows` is 0 if a message has no room for a single row.
    """
    return CallLimits(
        max_rows=min(settings.max_rows_per_call, rows_per_message(settings, row_bytes(served))),
        max_message_bytes=settings.max_message_bytes,
        max_pixels_per_file=settings.max_pixels_per_file,
    )


def rows_per_message(settings: ServeSettings, num_bytes: int) -> int:
    """Return how many rows of `num_bytes` fit into a message."""
    return (settings.max_message_bytes - _MESSAGE_OVERHEAD_BYTES) // num_bytes


def row_bytes(served: LoadedVersion) -> int:
    """Return the maximum bytes of a row, in a message or in memory: an image and two latent vectors."""
    return served.manifest.image.num_values + 8 * served.manifest.latent_dim
