"""The fields of a message in protobuf's wire format, counted before the message is parsed.

A parsed message can take far more memory than its bytes: 44 times for empty messages in a repeated field,
which have 2 bytes each, and 16 times for packed integers of 1 byte. To count the fields, the walk jumps over
texts and bytes, and ends at the first limit that is passed. Source of the format: "Encoding" in the
documentation of Protocol Buffers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from google.protobuf.descriptor import FieldDescriptor

from convvae_service.calls.message_limits import MessageLimits
from convvae_service.errors import InvalidInput, Violation

__all__ = ["Contents", "check_fields", "contents_of", "unreadable"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
# A tag and a value; only the end of a group has less, and groups are refused.
_MIN_FIELD_BYTES = 2
# The last bytes of a message are not worth a walk: they count as the fields for which they have room.
_FEW_BYTES = 32
# Integers of any size, booleans and enums are varints: up to 8 bytes in memory for each byte on the wire.
_VARINT_TYPES = frozenset(
    {
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_ENUM,
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_SINT32,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
    }
)


@dataclass(frozen=True, slots=True)
class Contents:
    """The known fields with a length in one message: a message, a text, or packed integers.

    Attributes:
        path: Names of the fields that lead to it, such as `inputs.contents`.
        fields: The same for each field, by the tag on the wire. Bytes and packed floats are not among them:
            in memory they are as large as on the wire.
        names: Names of all fields, by their numbers.
        is_text: Whether it is a text.
        is_integers: Whether it is packed integers.
    """

    path: str
    fields: Mapping[int, "Contents"]
    names: Mapping[int, str]
    is_text: bool = False
    is_integers: bool = False


def contents_of(descriptor: Any, path: str = "") -> Contents:
    """Return the contents of a type of message, given its descriptor. The type must not contain itself."""
    fields = {}
    names = {field.number: f"{path}.{field.name}" if path else field.name for field in descriptor.fields}
    for field in descriptor.fields:
        name = names[field.number]
        tag = field.number << 3 | _LENGTH
        if field.message_type is not None:
            fields[tag] = contents_of(field.message_type, name)
        elif field.type == FieldDescriptor.TYPE_STRING:
            fields[tag] = Contents(name, {}, {}, is_text=True)
        elif field.is_repeated and field.type in _VARINT_TYPES:
            fields[tag] = Contents(name, {}, {}, is_integers=True)
    return Contents(path, fields, names)


def check_fields(data: bytes, contents: Contents, limits: MessageLimits) -> None:
    """Check the number of fields in a message, and the bytes of its texts and packed integers.

    Raises:
        InvalidInput: There are too many, or the bytes are not a message.
    """
    # A field has 2 bytes or more, except the ends of groups, which are refused.
    if len(data) <= min(limits.max_fields, limits.max_text_bytes):
        return
    try:
        _walk(data, contents, limits)
    except IndexError:
        raise unreadable() from None


def unreadable() -> InvalidInput:
    """Return the error of bytes that are no message of the method's request type."""
    return InvalidInput([Violation("request", "its bytes are not a message of the method's request type")])


def _walk(data: bytes, contents: Contents, limits: MessageLimits) -> None:
    """Walk through the fields of a message and of the messages in it, in one loop: most calls pass here."""
    position, end = 0, len(data)
    fields = contents.fields
    outer: list[tuple[int, Contents]] = []
    fields_left, integers_left = limits.max_fields, limits.max_integer_bytes
    while True:
        bytes_left = end - position
        if bytes_left <= _FEW_BYTES:
            if bytes_left < 0:
                raise unreadable()
            if not outer:
                return
            fields_left -= bytes_left // _MIN_FIELD_BYTES
            position = end
            end, contents = outer.pop()
            fields = contents.fields
            continue
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = _varint(data, position - 1)
        if fields_left <= 0:
            _refuse_fields(contents, tag, limits)
        fields_left -= 1
        kind = tag & 7
        if kind == _LENGTH:
            length = data[position]
            position += 1
            if length > 127:
                length, position = _varint(data, position - 1)
            field = fields.get(tag)
            if field is not None:
                if field.is_text:
                    if length > limits.max_text_bytes:
                        _refuse(field.path, length, "", limits.max_text_bytes, "a text")
                elif field.is_integers:
                    integers_left -= length
                    if integers_left < 0:
                        used = limits.max_integer_bytes - integers_left
                        _refuse(field.path, used, " of integers", limits.max_integer_bytes, "one call")
                else:
                    outer.append((end, contents))
                    end, contents, fields = position + length, field, field.fields
                    if end > outer[-1][0]:
                        raise unreadable()
                    continue
            position += length
        elif kind == _VARINT:
            if data[position] > 127:
                _, position = _varint(data, position)
            else:
                position += 1
        elif kind == _FIXED32:
            position += 4
        elif kind == _FIXED64:
            position += 8
        else:
            # Groups: no request has them, and the walk would have to follow them.
            raise unreadable()


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at a position, and the position after it."""
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise unreadable()


def _refuse(path: str, num_bytes: int, of: str, max_bytes: int, what: str) -> NoReturn:
    raise InvalidInput([Violation(path, f"has {num_bytes} bytes{of}, more than the {max_bytes} of {what}")])


def _refuse_fields(contents: Contents, tag: int, limits: MessageLimits) -> NoReturn:
    name = contents.names.get(tag >> 3, "request")
    raise InvalidInput([Violation(name, f"the message has more than {limits.max_fields} fields, up to here")])
