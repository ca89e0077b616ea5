"""Messages of millions of empty parts: results/FRONT/elements.json.

    python tests/attack/elements.py [--front grpcio|native]

A part takes 2 bytes on the wire, and an object of 40 to 120 bytes once the message is parsed.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import ENCODE, MODEL_INFER, STREAM_INFER, send
from attack.target import attacked
from support.figure import measure_to_files
from support.tiny_bundle import publish_tiny

MIB = 1 << 20
DECODE = "/convvae.v1.VaeService/Decode"
INDEX = "/inference.GRPCInferenceService/RepositoryIndex"


def field(number: int, data: bytes) -> bytes:
    """Return a field of bytes, or of a message, as the wire has it."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def messages(num_bytes: int) -> dict[str, tuple[str, bytes]]:
    """Return messages of about so many bytes each, by name, with the methods that they are for."""

    def many(part: bytes) -> bytes:
        return part * (num_bytes // len(part))

    ints = field(2, many(b"\1"))
    return {
        "empty files": (ENCODE, many(field(3, b""))),
        "empty pixels again and again": (ENCODE, many(field(2, b""))),
        "unknown fields": (ENCODE, many(b"\xf8\x07\1")),
        "unknown groups in groups": (ENCODE, b"\xfb\x07" * 90 + many(b"\xf8\x07\1") + b"\xfc\x07" * 90),
        "inputs": (MODEL_INFER, many(field(5, b""))),
        "outputs": (MODEL_INFER, many(field(6, b""))),
        "raw contents": (MODEL_INFER, many(field(7, b""))),
        "parameters": (MODEL_INFER, many(field(4, b""))),
        "inputs of a stream": (STREAM_INFER, many(field(5, b""))),
        "sizes of a shape": (MODEL_INFER, field(5, field(3, many(b"\1")))),
        "numbers of one tensor": (MODEL_INFER, field(5, field(5, ints))),
        "texts of one tensor": (MODEL_INFER, field(5, field(5, many(field(8, b""))))),
        "parameters of inputs": (MODEL_INFER, many(field(5, field(4, b"") * 16))),
        "parts of a vector": (DECODE, many(field(2, b""))),
        "parts of an index": (INDEX, many(field(4, b""))),
    }


def measure(front: str, mib: float = 60.0, repeat_s: float = 1.5) -> dict[str, Any]:
    """Return the figures of messages of so many MiB, each kind sent for so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with attacked(front, Path(folder)) as target:
            for name, (method, data) in messages(int(mib * MIB)).items():
                target.observe(name, send, method, data, repeat_s=repeat_s)
            method, data = messages(int(mib * MIB))["inputs"]
            target.observe("inputs from 8 callers", send, method, data, callers=8, repeat_s=repeat_s)
            return {"figure": "plain messages of millions of empty parts", "mib": mib, **target.finish()}


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
