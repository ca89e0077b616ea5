"""Image files that are small, and long or large to decode: results/FRONT/image_files.json.

    python tests/attack/image_files.py [--front grpcio|native]

A second honest caller sends a PNG of 8x6 pixels. It shares the threads that decode files.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import ENCODE, send
from attack.elements import field
from attack.hostile_pictures import pictures
from attack.target import attacked
from support.figure import measure_to_files
from support.tiny_bundle import publish_tiny

# The default of max_call_s is 60; no honest file may need a tenth of it.
MOST_FILE_MS = 6000.0


def measure(front: str, scale: float = 1.0, repeat_s: float = 1.0) -> dict[str, Any]:
    """Return the figures of files of so many times their full size, each kind sent for so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with attacked(front, Path(folder), honest=("sample", "file")) as target:
            for name, files in pictures(scale).items():
                data = b"".join(field(3, file) for file in files)
                found = target.observe(name, send, ENCODE, data, timeout_s=60.0, repeat_s=repeat_s)
                found["file_bytes"] = len(files[0])
            result = target.finish()
    waits_ms = [found.get("honest_file", {}).get("max_ms", 0.0) for found in result["attacks"].values()]
    result["met"]["an honest file waits at most 6 s"] = max(waits_ms) <= MOST_FILE_MS
    return {"figure": "image files that are small, and long or large to decode", "scale": scale, **result}


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
