"""Large requests that are refused, and what remains of them: results/FRONT/lingering.json.

    python tests/attack/lingering.py [--front grpcio|native]

Each is refused for another reason, by another part of the server. Nothing of it may remain.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import ENCODE, MODEL_INFER, STREAM_INFER, send
from attack.elements import field
from attack.target import attacked
from support.figure import measure_to_files
from support.tiny_bundle import publish_tiny

MIB = 1 << 20
SCORE = "/convvae.v1.VaeService/Score"
CHECK = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
CALLERS = 8
CROWDED = ("no message", "a long id", "an unknown model of a stream", "a long name for health")
UNKNOWN = "/convvae.v1.VaeService/Nothing"


def requests(num_bytes: int) -> dict[str, tuple[str, bytes]]:
    """Return large requests that are refused, by the reason, with their methods."""
    filler = bytes(num_bytes)
    return {
        "an unknown model": (ENCODE, field(1, field(1, filler))),
        "pixels of a wrong length": (ENCODE, field(2, field(1, filler))),
        "a file that is no image": (ENCODE, field(3, filler)),
        "files that are no images": (ENCODE, field(3, bytes(num_bytes // 1000)) * 1000),
        "no message": (ENCODE, b"\xff" * num_bytes),
        "a message cut in the middle": (ENCODE, field(2, filler)[: num_bytes // 2]),
        "text that is no UTF-8": (MODEL_INFER, field(1, b"\xff" * num_bytes)),
        "a long id": (MODEL_INFER, field(3, b"i" * num_bytes)),
        "an unknown model of a stream": (STREAM_INFER, field(1, b"m" * num_bytes)),
        "a score of nothing": (SCORE, field(100, filler)),
        "a long name for health": (CHECK, field(1, b"n" * num_bytes)),
        "a long name for reflection": (REFLECTION, field(4, b"n" * num_bytes)),
        "an unknown method": (UNKNOWN, filler),
    }


def measure(front: str, mib: float = 62.0, repeat_s: float = 1.5) -> dict[str, Any]:
    """Return the figures of requests of so many MiB, one by one, and eight of an eighth at once."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with attacked(front, Path(folder)) as target:
            for name, (method, data) in requests(int(mib * MIB)).items():
                target.observe(name, send, method, data, repeat_s=repeat_s)
            parts = requests(int(mib * MIB / CALLERS))
            for name in CROWDED:
                target.observe(
                    f"{name}, {CALLERS} callers", send, *parts[name], callers=CALLERS, repeat_s=repeat_s
                )
            return {"figure": "large requests that are refused", "mib": mib, **target.finish()}


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
