"""A child process that decodes files whose decoders hold Python's lock or may need much memory.

Pillow holds Python's lock while it decodes a WebP, and the tables of a lossless WebP may take a GiB for a
file of some MiB. The child has a limit of memory, and is ended if it takes too long.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.header import InvalidImage

__all__ = ["PIXELS", "REASON", "DecodingChild"]

# The first byte of a reply: pixels, or the reason of a refusal.
PIXELS, REASON = b"P", b"R"
# The slowest file that was found takes 2 s.
_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 60.0
_PROGRAM = "convvae_service.images.child_program"


class DecodingChild:
    """A process that decodes one file at a time. It starts with the first file, and ends with its parent."""

    def __init__(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Start nothing yet.

        Args:
            timeout_s: Seconds that a file may take.
        """
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._lock = Lock()

    def decode(self, data: bytes, *, shape: ImageShape, resize: Resize, max_pixels: int) -> NDArray[np.uint8]:
        """Decode a file as `decode_file` does. One caller at a time is served.

        Raises:
            InvalidImage: The file cannot be decoded, or takes too long or too much memory.
            OSError: The process cannot start.
        """
        rule = {"shape": asdict(shape), "resize": asdict(resize), "max_pixels": max_pixels}
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._end()  # somebody has killed it, such as the kernel for lack of memory
            pipe = self._pipe or self._start()
            try:
                pipe.send_bytes(json.dumps(rule).encode())
                pipe.send_bytes(data)
                if not pipe.poll(self._timeout_s):
                    self._end()
                    raise InvalidImage(f"takes more than {self._timeout_s:g} s to decode: save it again")
                reply = pipe.recv_bytes()
            except (OSError, EOFError):
                self._end()
                raise InvalidImage("damaged image: its decoder has failed") from None
        if reply[:1] == REASON:
            raise InvalidImage(reply[1:].decode())
        return np.frombuffer(reply, np.uint8, offset=1).reshape(shape.as_tuple)

    def close(self) -> None:
        """End the process, and fail the file that it decodes. A later file starts another."""
        process = self._process
        if process is not None:
            process.kill()  # before the lock, which is held while a file is decoded
        with self._lock:
            self._end()

    def _start(self) -> Connection:
        """Start the process, and wait until it is ready."""
        pipe, other = Pipe()
        # A signal to the process group of the parent must not end the child; the parent's end does.
        with other:
            self._process = subprocess.Popen(  # noqa: S603 - the project's own program
                [sys.executable, "-P", "-m", _PROGRAM, str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,
                # Its threads would reserve memory.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        self._pipe = pipe
        try:
            if not pipe.poll(_START_TIMEOUT_S):
                raise EOFError
            pipe.recv_bytes()
        except (OSError, EOFError):
            self._end()
            raise OSError("the process that decodes WebP files cannot start") from None
        return pipe

    def _end(self) -> None:
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.kill()
            process.wait()
