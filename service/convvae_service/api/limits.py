"""Limits on one call to one model."""

from dataclasses import dataclass

from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.settings.serve import ServeSettings

__all__ = ["CallLimits", "call_limits", "rows_per_message"]

# Room in a message for everything that is not rows.
_MESSAGE_OVERHEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """Limits on one call to one model.

    Attributes:
        max_rows: Maximum number of rows.
        max_message_bytes: Maximum bytes of a request or reply.
        max_pixels_per_file: Maximum pixels of an image file.
        row_bytes: Maximum bytes of a row, in a message or in memory: an image and two latent vectors.
    """

    max_rows: int
    max_message_bytes: int
    max_pixels_per_file: int
    row_bytes: int


def call_limits(settings: ServeSettings, served: LoadedVersion) -> CallLimits:
    """Return the limits on one call to this version: request and reply must each fit into a message.

    `max_rows` is 0 if a message has no room for a single row.
    """
    row_bytes = served.manifest.image.num_values + 8 * served.manifest.latent_dim
    return CallLimits(
        max_rows=min(settings.max_rows_per_call, rows_per_message(settings, row_bytes)),
        max_message_bytes=settings.max_message_bytes,
        max_pixels_per_file=settings.max_pixels_per_file,
        row_bytes=row_bytes,
    )


def rows_per_message(settings: ServeSettings, num_bytes: int) -> int:
    """Return how many rows of `num_bytes` fit into a message."""
    return (settings.max_message_bytes - _MESSAGE_OVERHEAD_BYTES) // num_bytes
