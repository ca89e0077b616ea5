"""Requests that are nearly right: valid messages with fields, values, lengths or bytes changed at random."""

import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import EncodeError, Message

from convvae.v1 import vae_pb2
from open_inference import inference_pb2
from support.inference_wire import decode_request, encode_request
from support.tiny_bundle import LATENT_DIM, SHAPE
from support.wire import pixels, png, random_images, vectors

__all__ = ["NATIVE", "OPEN_INFERENCE", "mutated"]

_IMAGES = random_images(2, *SHAPE.as_tuple)
_LATENTS = np.random.default_rng(0).normal(size=(2, LATENT_DIM)).astype(np.float32)
_MODEL = vae_pb2.ModelRef(name="tiny", version=1)
_VAE, _INFERENCE = "/convvae.v1.VaeService/", "/inference.GRPCInferenceService/"

# Full method names, and requests that are right.
NATIVE: dict[str, tuple[Message, ...]] = {
    _VAE + "Encode": (
        vae_pb2.EncodeRequest(model=_MODEL, pixels=pixels(_IMAGES), include_log_variance=True),
        vae_pb2.EncodeRequest(files=[png(image) for image in _IMAGES]),
    ),
    _VAE + "Decode": (vae_pb2.DecodeRequest(model=_MODEL, latents=vectors(_LATENTS)),),
    _VAE + "Sample": (vae_pb2.SampleRequest(model=_MODEL, count=2, seed=7, first_row=3, temperature=1.0),),
    _VAE + "Reconstruct": (
        vae_pb2.ReconstructRequest(model=_MODEL, pixels=pixels(_IMAGES)),
        vae_pb2.ReconstructRequest(files=[png(image) for image in _IMAGES]),
    ),
    _VAE + "Score": (
        vae_pb2.ScoreRequest(model=_MODEL, pixels=pixels(_IMAGES)),
        vae_pb2.ScoreRequest(model=_MODEL, pixels=pixels(_IMAGES), num_samples=2, seed=1, first_row=1),
    ),
    _VAE + "ListModels": (vae_pb2.ListModelsRequest(),),
    _VAE + "GetModel": (vae_pb2.GetModelRequest(model=_MODEL),),
}


def _infer_requests() -> tuple[Message, ...]:
    typed = encode_request()
    del typed.raw_input_contents[:]
    values = np.frombuffer(encode_request().raw_input_contents[0], np.uint8)
    typed.inputs[0].contents.uint_contents.extend(values.tolist())
    asked = decode_request(id="7", model_version="1")
    asked.outputs.add(name="image")
    asked.parameters["timeout"].int64_param = 10_000_000
    return encode_request(), decode_request(), typed, asked


OPEN_INFERENCE: dict[str, tuple[Message, ...]] = {
    _INFERENCE + "ModelInfer": _infer_requests(),
    _INFERENCE + "ModelStreamInfer": _infer_requests(),
    _INFERENCE + "ModelReady": (inference_pb2.ModelReadyRequest(name="tiny.encoder", version="1"),),
    _INFERENCE + "ModelMetadata": (inference_pb2.ModelMetadataRequest(name="tiny.decoder", version="1"),),
    _INFERENCE + "ModelConfig": (inference_pb2.ModelConfigRequest(name="tiny.encoder"),),
    _INFERENCE + "ModelStatistics": (inference_pb2.ModelStatisticsRequest(name="tiny.encoder"),),
    _INFERENCE + "RepositoryIndex": (inference_pb2.RepositoryIndexRequest(ready=True),),
}
# Most calls go where there is most to read.
_WEIGHTS = {_INFERENCE + "ModelInfer": 12, _INFERENCE + "ModelStreamInfer": 4}

_INTEGERS = (0, 1, 2, 3, 7, 48, 255, 1024, 1025, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1, -1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e30, 3e38, float("inf"), float("-inf"), float("nan"))
_WORDS = ("", "tiny", "tiny.encoder", "tiny.decoder", "image", "latent", "mean", "UINT8", "FP32", "INT64",
          "9", "1", "0", "-1", "٣", "../..", "tiny\0", "\N{SNOWMAN}" * 40, "x" * 3000, "timeout",
          "shared_memory_region")  # fmt: skip
_SPANS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
# One of ten requests is changed as bytes, when its structure is lost.
_AS_BYTES = 0.1


def mutated(draw: random.Random, methods: dict[str, tuple[Message, ...]]) -> tuple[str, bytes]:
    """Return a method's full name, and a request to it that one to three changes have been made to."""
    names = list(methods)
    (name,) = draw.choices(names, [_WEIGHTS.get(name, 3) for name in names])
    original = draw.choice(methods[name])
    message = type(original)()
    message.CopyFrom(original)
    for _ in range(draw.randint(1, 3)):
        _change(draw, message)
    try:
        data = bytes(message.SerializeToString())
    except EncodeError:
        data = bytes(original.SerializeToString())
    return name, _changed_bytes(draw, data) if draw.random() < _AS_BYTES else data


def _change(draw: random.Random, message: Message) -> None:
    """Change one field, at any depth."""
    fields: list[Any] = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    present: list[FieldDescriptor] = [field for field, _ in message.ListFields()]
    # Fields that are set have more to lose.
    field = draw.choice(present if present and draw.random() < 0.8 else fields)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _change_map(draw, getattr(message, field.name))
    elif field.is_repeated:
        _change_list(draw, field, getattr(message, field.name))
    elif draw.random() < 0.15:
        message.ClearField(field.name)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _change(draw, inner)
    else:
        setattr(message, field.name, _value(draw, field, getattr(message, field.name)))


def _change_map(draw: random.Random, found: Any) -> None:
    key = draw.choice([*found, *_WORDS[:-3], "timeout", "priority"])
    if key in found and draw.random() < 0.3:
        del found[key]
    else:
        _change(draw, found[key])


def _change_list(draw: random.Random, field: FieldDescriptor, found: Any) -> None:
    action = draw.choice(("drop", "double", "change", "change", "add"))
    index = draw.randrange(len(found)) if found else 0
    if action == "drop" and found:
        del found[index]
    elif action == "double" and found:
        found.extend(list(found) if len(found) < 1000 else [found[0]])
    elif field.message_type is not None:
        _change(draw, found[index] if found and action == "change" else found.add())
    elif found and action == "change":
        found[index] = _value(draw, field, found[index])
    else:
        found.append(_value(draw, field, found[0] if found else None))


def _value(draw: random.Random, field: FieldDescriptor, old: Any) -> Any:
    if field.cpp_type in _SPANS:
        low, high = _SPANS[field.cpp_type]
        near = [old + 1, old - 1, 2 * old] if isinstance(old, int) else []
        return draw.choice([value for value in (*_INTEGERS, *near) if low <= value <= high])
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return draw.choice(_FLOATS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return draw.random() < 0.5
    if field.enum_type is not None:
        return draw.randrange(len(field.enum_type.values))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _changed_bytes(draw, old or b"")
    return draw.choice(_WORDS)


def _changed_bytes(draw: random.Random, data: bytes) -> bytes:
    changes: list[Callable[[], bytes]] = [
        lambda: data[: draw.randrange(len(data) + 1)],
        lambda: data + draw.randbytes(draw.randint(1, 64)),
        lambda: draw.randbytes(draw.randint(0, 256)),
        lambda: data * 2,
        lambda: struct.pack("<f", draw.choice(_FLOATS)) * (len(data) // 4),
    ]
    if data:
        at = draw.randrange(len(data))
        changes += [
            lambda: data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :],
            lambda: data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :],
            lambda: data[:at] + draw.randbytes(4) + data[at:],
            lambda: data[:at] + data[at + 1 :],
        ]
    return draw.choice(changes)()
