"""Calls that an older version made, as files keep them, and how a reply differs from the one of then."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf import descriptor, descriptor_pool, message_factory, unknown_fields
from google.protobuf.message import Message
from numpy.typing import DTypeLike

__all__ = ["Call", "call_of", "differences", "message_of", "text_of"]

Field = descriptor.FieldDescriptor
FLOATS = {Field.TYPE_FLOAT, Field.TYPE_DOUBLE}
TOLERANCE = 1e-5
IMAGE_STEPS = 1
# Bytes that are numbers.
NUMBERS: dict[str, DTypeLike] = {"convvae.v1.Vectors.data": "<f4", "convvae.v1.Pixels.data": np.uint8}
DATATYPES: dict[str, DTypeLike] = {"FP32": "<f4", "UINT8": np.uint8}
# Values that every server has of its own; only that there is one counts.
OWN = {
    "inference.ServerMetadataResponse.version",
    # One for each CPU.
    "inference.ModelInstanceGroup.count",
    "inference.ModelStatisticsResponse.model_stats",
    "inference.ModelStreamInferResponse.error_message",
    "convvae.v1.GetModelResponse.limits",
}
# Lists to which later versions may add.
GROWING = {"inference.ServerMetadataResponse.extensions"}
# Fields of replies that are newer than a recording.
ADDED = {"inference.ModelConfig.parameters"}


@dataclass
class Call:
    """One call: its method, such as `/convvae.v1.VaeService/Encode`, messages as bytes, and how it ended."""

    method: str
    requests: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)
    code: str = "OK"
    details: bytes = b""


def text_of(call: Call) -> dict[str, Any]:
    """Return a call as a file keeps it, with bytes in base64."""
    written: dict[str, Any] = {"method": call.method, "code": call.code}
    for name, messages in (("requests", call.requests), ("replies", call.replies)):
        written[name] = [base64.b64encode(message).decode() for message in messages]
    if call.details:
        written["details"] = base64.b64encode(call.details).decode()
    return written


def call_of(written: Mapping[str, Any]) -> Call:
    """Return the call that a file keeps."""
    requests, replies = (
        [base64.b64decode(text, validate=True) for text in written[name]] for name in ("requests", "replies")
    )
    details = base64.b64decode(written.get("details", ""), validate=True)
    return Call(written["method"], requests, replies, written["code"], details)


def message_of(method: str, reply: bytes) -> Message:
    """Parse a reply of a method, whose proto must be imported."""
    _, service, name = method.split("/")
    pool = descriptor_pool.Default()
    output = pool.FindServiceByName(service).methods_by_name[name].output_type
    return message_factory.GetMessageClass(output).FromString(reply)


def differences(recorded: Message, present: Message) -> Iterator[str]:
    """Yield what a reply lacks, or says otherwise, beside the recorded one. Added fields must be listed."""
    unknown: Any = unknown_fields.UnknownFieldSet(recorded)
    for each in unknown:
        yield f"{recorded.DESCRIPTOR.full_name} has no field {each.field_number} any more"
    now = {each.name for each, _ in present.ListFields()}
    for each, value in recorded.ListFields():
        name = each.full_name
        if each.name not in now:
            yield f"{name} is missing"
        elif name not in OWN:
            yield from _of_field(each, value, getattr(present, each.name), recorded)
    for name in sorted(now - {each.name for each, _ in recorded.ListFields()}):
        full_name = f"{present.DESCRIPTOR.full_name}.{name}"
        if full_name not in ADDED:
            yield f"{full_name} is set, which it was not"


def _of_field(each: Any, recorded: Any, present: Any, message: Message) -> Iterator[str]:
    name = each.full_name
    if name in GROWING:
        if missing := set(recorded) - set(present):
            yield f"{name} lacks {sorted(missing)}"
    elif name == "convvae.v1.GetModelResponse.manifest_json":
        if not _has(json.loads(present), json.loads(recorded)):
            yield f"{name} has not all that it had: {present!r:.200}"
    elif not each.is_repeated:
        yield from _of_value(each, recorded, present, NUMBERS.get(name))
    elif len(recorded) != len(present):
        yield f"{name} has {len(present)} values and had {len(recorded)}"
    elif each.message_type and each.message_type.GetOptions().map_entry:
        lost = sorted(key for key in recorded if key not in present or recorded[key] != present[key])
        if lost:
            yield f"{name} lacks or changes {lost}"
    else:
        outputs = getattr(message, "outputs", ())
        for index, (old, new) in enumerate(zip(recorded, present, strict=True)):
            is_raw = each.name == "raw_output_contents"
            yield from _of_value(each, old, new, DATATYPES[outputs[index].datatype] if is_raw else None)


def _has(present: Any, recorded: Any) -> bool:
    """Return whether JSON has everything that it had, at any depth."""
    if isinstance(recorded, dict) and isinstance(present, dict):
        return all(key in present and _has(present[key], value) for key, value in recorded.items())
    return bool(present == recorded)


def _of_value(each: Any, recorded: Any, present: Any, dtype: DTypeLike | None) -> Iterator[str]:
    if each.message_type:
        yield from differences(recorded, present)
        return
    if each.type in FLOATS:
        is_equal = bool(np.isclose(present, recorded, rtol=TOLERANCE, atol=TOLERANCE))
    elif dtype is not None and len(recorded) == len(present):
        is_equal = _are_close(np.frombuffer(recorded, dtype), np.frombuffer(present, dtype))
    else:
        is_equal = recorded == present
    if not is_equal:
        yield f"{each.full_name} is {present!r:.200} and was {recorded!r:.200}"


def _are_close(recorded: np.ndarray, present: np.ndarray) -> bool:
    if recorded.dtype == np.uint8:
        return bool((np.abs(recorded.astype(int) - present) <= IMAGE_STEPS).all())
    return bool(np.allclose(present, recorded, rtol=TOLERANCE, atol=TOLERANCE))
