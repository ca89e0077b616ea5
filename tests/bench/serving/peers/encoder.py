"""The encoder of every peer: raw pixels in, raw float32 means out, and a count of the batches.

It runs in the peers' environments, so it imports nothing of this project.
"""

import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

__all__ = ["CALLERS", "Encoder", "port"]

# Maximum calls of a batch. All peers wait at most 1 ms for a batch to fill.
CALLERS = 16
MAX_RUN_ROWS = 64
_COUNTS = struct.Struct("<dd")


def port() -> int:
    """Return the port that the server is told to serve on."""
    return int(os.environ["PEER_PORT"])


class Encoder:
    """The reference encoder on one thread, in runs of at most 64 rows, as this project's service runs it."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = os.environ["PEER_GRAPH"]
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        (image,) = self._session.get_inputs()
        self._shape = tuple(image.shape[1:])
        self.image_bytes = int(np.prod(self._shape))
        with Path(os.environ["PEER_COUNTS"]).open("r+b") as file:
            self._counts = mmap.mmap(file.fileno(), _COUNTS.size)

    def encode(self, calls: Sequence[bytes]) -> list[bytes]:
        """Return the means of the images of each call."""
        sizes = [len(call) // self.image_bytes for call in calls]
        pixels = calls[0] if len(calls) == 1 else b"".join(calls)
        images = np.frombuffer(pixels, np.uint8).reshape(-1, *self._shape)
        runs = [self._run(images[i : i + MAX_RUN_ROWS]) for i in range(0, len(images), MAX_RUN_ROWS)]
        means = runs[0] if len(runs) == 1 else np.concatenate(runs)
        ends = np.cumsum(sizes)
        return [means[end - size : end].tobytes() for size, end in zip(sizes, ends, strict=True)]

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        count, rows = _COUNTS.unpack(self._counts[: _COUNTS.size])
        self._counts[: _COUNTS.size] = _COUNTS.pack(count + 1, rows + len(images))
        mean: NDArray[np.float32] = self._session.run(None, {"image": images})[0]
        return mean
