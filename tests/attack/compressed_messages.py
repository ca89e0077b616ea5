"""Compressed messages that expand a thousandfold: results/FRONT/compressed_messages.json.

    python tests/attack/compressed_messages.py [--front grpcio|native]

By the default, which refuses compressed requests, and with `--request-compression gzip`.
"""

import gzip
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import ENCODE, MODEL_INFER, STREAM_INFER
from attack.elements import field
from attack.target import Outcome, attacked
from support.figure import measure_to_files
from support.raw_connection import RawConnection
from support.tiny_bundle import publish_tiny

MIB = 1 << 20
MOST_S = 10.0
# One byte says that the message is compressed, four have its length.
COMPRESSED = b"\1"


def send_compressed(address: str, method: str, packed: bytes, encoding: str, num_calls: int = 1) -> Outcome:
    """Make calls at once on one connection, whose messages are these compressed bytes."""
    connection = RawConnection(address)
    try:
        data = COMPRESSED + len(packed).to_bytes(4, "big") + packed
        streams = [connection.begin(method, {"grpc-encoding": encoding}) for _ in range(num_calls)]
        for stream in streams:
            connection.send_data(stream, data, ends=True)
        connection.read_until_ended(num_calls, MOST_S)
        return Outcome(sent_bytes=connection.sent_bytes, facts={"ended": connection.ended})
    finally:
        connection.close()


def bombs(mib: float) -> dict[str, tuple[str, bytes, str]]:
    """Return the methods, messages and encodings of the attacks by name.

    Each message expands to so many MiB.
    """
    size = int(mib * MIB)
    zeros, inputs = gzip.compress(field(1, bytes(size))), gzip.compress(b"\x2a\0" * (size // 2))
    return {
        "zeros": (ENCODE, zeros, "gzip"),
        "zeros, compressed twice": (ENCODE, gzip.compress(zeros), "gzip"),
        "empty inputs": (MODEL_INFER, inputs, "gzip"),
        "empty inputs of a stream": (STREAM_INFER, inputs, "gzip"),
        "empty inputs by deflate": (MODEL_INFER, zlib.compress(b"\x2a\0" * (size // 2)), "deflate"),
        "another encoding": (ENCODE, zeros, "br"),
        "no encoding": (ENCODE, zeros, "identity"),
        "a broken gzip": (ENCODE, zeros[: len(zeros) // 2], "gzip"),
    }


def measure(front: str, mib: float = 126.0, repeat_s: float = 1.0) -> dict[str, Any]:
    """Return the figures of messages that expand to so many MiB, with either setting."""
    met: dict[str, bool] = {}
    results = {}
    for setting in ("off", "gzip"):
        with tempfile.TemporaryDirectory() as folder:
            publish_tiny(Path(folder))
            with attacked(front, Path(folder), "--request-compression", setting) as target:
                attacks = bombs(mib)
                for name, words in attacks.items():
                    target.observe(name, send_compressed, *words, repeat_s=repeat_s)
                target.observe("32 calls at once", send_compressed, *attacks["zeros"], 32)
                inputs = attacks["empty inputs"]
                target.observe("8 calls of 4 callers", send_compressed, *inputs, 8, callers=4)
                results[setting] = target.finish()
        for name, is_met in results[setting].pop("met").items():
            met[name] = met.get(name, True) and is_met
    return {
        "figure": "compressed messages that expand a thousandfold",
        "met": met,
        "mib": mib,
        "request_compression": results,
    }


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
