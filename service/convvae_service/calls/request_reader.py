"""Requests from bytes to messages, with limits on what a message may become in memory."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from convvae_service.calls.message_limits import MessageLimits
from convvae_service.calls.wire_format import check_fields, contents_of, unreadable
from convvae_service.errors import InvalidInput, Violation

__all__ = ["RequestReader"]


class RequestReader:
    """Reads the requests of one type.

    Args:
        kind: The type of the message.
        limits: Limits on a message.
    """

    def __init__(self, kind: type[Message], limits: MessageLimits) -> None:
        self._kind = kind
        self._limits = limits
        self._contents = contents_of(kind.DESCRIPTOR)
        self._max_bytes = limits.max_bytes if _has_bytes(kind.DESCRIPTOR) else limits.max_small_bytes

    def read(self, data: bytes) -> Any:
        """Return the message.

        Raises:
            InvalidInput: The bytes are no such message, or the message is too large.
        """
        if len(data) > self._max_bytes:
            raise InvalidInput(
                [Violation("request", f"has {len(data)} bytes, more than the {self._max_bytes} of one call")]
            )
        check_fields(data, self._contents, self._limits)
        try:
            return self._kind.FromString(data)
        except DecodeError:
            raise unreadable() from None


def _has_bytes(descriptor: Any) -> bool:
    return any(
        _has_bytes(field.message_type)
        if field.message_type is not None
        else field.type == FieldDescriptor.TYPE_BYTES
        for field in descriptor.fields
    )
