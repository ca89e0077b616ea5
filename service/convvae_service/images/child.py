"""A child process that decodes files whose decoders hold Python's lock or may need much memory.

Pillow holds Python's lock while it decodes a WebP, and the tables of a lossless WebP may take a GiB for a
file of some MiB. The child has a limit of memory, and is ended if it takes too long.
"""

import json
from dataclasses import asdict
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.header import InvalidImage
from convvae_service.images.own_process import OwnProcess

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
        self._process: OwnProcess | None = None
        self._lock = Lock()

    def decode(self, data: bytes, *, shape: ImageShape, resize: Resize, max_pixels: int) -> NDArray[np.uint8]:
        """Decode a file as `decode_file` does. One caller at a time is served.

        Raises:
            InvalidImage: The file cannot be decoded, or takes too long or too much memory.
            OSError: The process cannot start.
        """
        rule = {"shape": asdict(shape), "resize": asdict(resize), "max_pixels": max_pixels}
        with self._lock:
            if self._process is not None and self._process.has_ended():
                self._end()  # somebody has killed it, such as the kernel for lack of memory
            pipe = (self._process or self._start()).pipe
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

    def _start(self) -> OwnProcess:
        """Start the process, and wait until it is ready."""
        self._process = process = OwnProcess(_PROGRAM)
        try:
            if process.is_ready(_START_TIMEOUT_S):
                return process
        except OSError:
            pass
        self._end()
        raise OSError("the process that decodes WebP files cannot start")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()
