"""Limits on the messages of requests, which hold before a message is parsed."""

from dataclasses import dataclass

from convvae_service.settings.serve import ServeSettings

__all__ = ["MessageLimits", "message_limits"]

# Room for everything that is not an image file: names, parameters, inputs and outputs.
_OTHER_FIELDS = 1024
# Names, ids and text parameters.
_MAX_TEXT_BYTES = 1 << 17
# 1,024 images of 28x28x1 as typed values of two bytes each. Python stands still for 12 ms while a megabyte of
# integers is parsed.
_MAX_INTEGER_BYTES = 2 << 20
# Requests that have neither images nor vectors nor tensors.
_MAX_SMALL_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageLimits:
    """Limits on one message of a request.

    Attributes:
        max_bytes: Maximum bytes of a message.
        max_small_bytes: The same for a type of message that has no field of bytes.
        max_fields: Maximum number of fields, with those of the messages in it. Each element of a repeated
            field and each entry of a map is one, but packed numbers are one field together.
        max_text_bytes: Maximum bytes of one text.
        max_integer_bytes: Maximum bytes of all packed integers together.
    """

    max_bytes: int
    max_small_bytes: int
    max_fields: int
    max_text_bytes: int
    max_integer_bytes: int


def message_limits(settings: ServeSettings) -> MessageLimits:
    """Return the limits on one message that follow from the settings."""
    return MessageLimits(
        max_bytes=settings.max_message_bytes,
        max_small_bytes=min(_MAX_SMALL_BYTES, settings.max_message_bytes),
        max_fields=settings.max_rows_per_call + _OTHER_FIELDS,
        max_text_bytes=_MAX_TEXT_BYTES,
        max_integer_bytes=_MAX_INTEGER_BYTES,
    )
