"""Processes that decode image files, where the threads of one process would wait for Python's lock.

Each process shares a block of memory with its parent. The parent puts files there, and the process puts their
pixels behind them, so that only sizes and errors go through a pipe.
"""

import json
import mmap
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from threading import Condition
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from convvae_service.images.file_decoder import decode_here
from convvae_service.images.header import InvalidImage, TooManyPixels
from convvae_service.images.model_input import ModelInput
from convvae_service.images.own_process import OwnProcess

__all__ = ["DecodingProcesses"]

_PROGRAM = "convvae_service.images.decoding_program"
# Work that has lasted so long will probably last longer than the 0.2 s that a process needs to start.
_PATIENCE_S = 1.0
_POLL_S = 0.01
_MAX_FAILED_STARTS = 5
# Processes that end at one file alone before it counts as damaged.
_MAX_ENDS = 3
_GROWTH_BYTES = 1 << 20
# A larger block is given back after use.
_KEPT_BYTES = 16 << 20


class DecodingProcesses:
    """Some processes as a `FileDecoder`, to use inside a `with` block.

    They start when files have been decoded for some time. Until one is ready, the threads that call decode,
    and also where none can start, or has memory for the files. If a process ends, another takes its place,
    and the files that it had are decoded one by one. A file that ends three more of them is an invalid image.

    Args:
        count: Number of processes. Below 2 none starts.
        patience_s: Seconds from the first file until they start.
    """

    def __init__(self, count: int, *, patience_s: float = _PATIENCE_S) -> None:
        self._count = self._missing = count if count > 1 else 0
        self._patience_s = patience_s
        self._begun_s: float | None = None
        self._changed = Condition()
        # All below is read and written with `_changed`.
        self._starting: list[_Process] = []
        self._free: list[_Process] = []
        self._busy: set[_Process] = set()
        self._failed_starts = 0
        self._is_closed = False

    def __call__(
        self, files: Sequence[bytes], pixels_BHWC: NDArray[np.uint8], model_input: ModelInput, max_pixels: int
    ) -> Mapping[int, InvalidImage]:
        """Decode files; see `FileDecoder`."""
        process = self._take(must_be_process=False)
        if process is None:
            return decode_here(files, pixels_BHWC, model_input, max_pixels)
        try:
            return self._decode_with(process, files, pixels_BHWC, model_input, max_pixels)
        except MemoryError:
            return decode_here(files, pixels_BHWC, model_input, max_pixels)
        except EOFError:
            pass
        errors: dict[int, InvalidImage] = {}
        for index in range(len(files)):
            one = slice(index, index + 1)
            found = self._decode_one(files[one], pixels_BHWC[one], model_input, max_pixels)
            errors |= {index + place: error for place, error in found.items()}
        return errors

    def _decode_one(
        self, files: Sequence[bytes], pixels_BHWC: NDArray[np.uint8], model_input: ModelInput, max_pixels: int
    ) -> Mapping[int, InvalidImage]:
        """Decode one file, in another process as often as one ends that may be killed by somebody else."""
        for _ in range(_MAX_ENDS):
            process = self._take(must_be_process=True)
            assert process is not None
            with suppress(EOFError):
                return self._decode_with(process, files, pixels_BHWC, model_input, max_pixels)
        return {0: InvalidImage("damaged image: its decoder has failed")}

    def start(self) -> None:
        """Start the processes now, and wait until they are ready.

        Raises:
            OSError: They cannot start.
        """
        with self._changed:
            self._start_missing()
            while self._starting:
                self._changed.wait(_POLL_S)
                self._greet()
                self._start_missing()
            if self._count and not self._free:
                raise OSError("the processes that decode images cannot start")

    @property
    def pids(self) -> list[int]:
        """The ids of the processes."""
        with self._changed:
            return [process.pid for process in (*self._starting, *self._free, *self._busy)]

    def _take(self, *, must_be_process: bool) -> "_Process | None":
        """Return a process when one is free, or None, if it may be, while none is ready."""
        with self._changed:
            while True:
                if self._is_closed:
                    raise OSError("the processes that decode images are closed")
                self._drop_ended()
                if must_be_process or self._is_time():
                    self._start_missing()
                self._greet()
                if self._free:
                    process = self._free.pop()
                    self._busy.add(process)
                    return process
                if not self._busy and not must_be_process:
                    return None
                if not self._busy and not self._starting:
                    raise OSError("the processes that decode images cannot start")
                self._changed.wait(_POLL_S if self._starting else None)

    def _drop_ended(self) -> None:
        """Drop the free processes that somebody has killed: a file has no part in their end."""
        for process in [process for process in self._free if process.has_ended()]:
            self._free.remove(process)
            process.end()
            self._missing += 1

    def _is_time(self) -> bool:
        now_s = time.monotonic()
        if self._begun_s is None:
            self._begun_s = now_s
        return now_s - self._begun_s >= self._patience_s

    def _start_missing(self) -> None:
        while self._missing:
            self._missing -= 1
            try:
                self._starting.append(_Process())
            except OSError:
                self._fail_start()

    def _fail_start(self) -> None:
        """Count a process that has not started, and let another start instead, a few times."""
        if self._failed_starts < _MAX_FAILED_STARTS:
            self._failed_starts += 1
            self._missing += 1

    def _greet(self) -> None:
        """Move the processes that are ready to the free ones, and replace some that have not started."""
        starting, self._starting = self._starting, []
        for process in starting:
            try:
                is_ready = process.is_ready()
            except OSError:
                process.end()
                self._fail_start()
                continue
            (self._free if is_ready else self._starting).append(process)
            if is_ready:
                self._failed_starts = 0

    def _decode_with(
        self,
        process: "_Process",
        files: Sequence[bytes],
        pixels_BHWC: NDArray[np.uint8],
        model_input: ModelInput,
        max_pixels: int,
    ) -> Mapping[int, InvalidImage]:
        """Decode files in a process that was taken, and give it back; see its `decode`."""
        is_alive = False
        try:
            errors = process.decode(files, pixels_BHWC, model_input, max_pixels)
            is_alive = True
            return errors
        except MemoryError:
            is_alive = True
            raise
        finally:
            with self._changed:
                self._busy.discard(process)
                if is_alive and not self._is_closed:
                    self._free.append(process)
                    self._changed.notify()
                else:
                    process.end()
                    self._missing += 1
                    # All look again: one of them starts another, or decodes without it.
                    self._changed.notify_all()

    def close(self) -> None:
        """End the processes. Calls that still wait for one raise `OSError`."""
        with self._changed:
            self._is_closed = True
            for process in self._busy:
                process.kill()  # the thread that waits for it ends it
            for process in (*self._starting, *self._free):
                process.end()
            self._starting, self._free = [], []
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Process:
    """One process, and the memory that it shares with this one. One thread at a time may call."""

    def __init__(self) -> None:
        self._memory = _new_memory()
        self._num_bytes = 0
        self._mapped: mmap.mmap | None = None
        try:
            self._process = OwnProcess(_PROGRAM, [self._memory])
        except BaseException:
            os.close(self._memory)
            raise
        self.pid = self._process.pid
        self.is_ready, self.kill = self._process.is_ready, self._process.kill
        self.has_ended = self._process.has_ended

    def decode(
        self, files: Sequence[bytes], pixels_BHWC: NDArray[np.uint8], model_input: ModelInput, max_pixels: int
    ) -> Mapping[int, InvalidImage]:
        """Decode files; see `FileDecoder`.

        Raises:
            EOFError: The process has ended.
            MemoryError: This process or the other lacks the memory for these files.
        """
        sizes = [len(data) for data in files]
        pixels_at = sum(sizes)
        mapped = self._map(pixels_at + pixels_BHWC.nbytes)
        for data in files:
            mapped.write(data)
        request = {"sizes": sizes, "memory_bytes": self._num_bytes, "max_pixels": max_pixels}
        request |= _rules(model_input)
        errors = self._answer(json.dumps(request).encode())
        pixels = np.frombuffer(mapped, np.uint8, pixels_BHWC.size, pixels_at)
        pixels_BHWC[...] = pixels.reshape(pixels_BHWC.shape)
        del pixels, mapped  # or the memory could not be given back
        if self._num_bytes > _KEPT_BYTES:
            self._resize(0)
        return {
            int(index): (TooManyPixels if is_too_many else InvalidImage)(reason)
            for index, (is_too_many, reason) in errors.items()
        }

    def _answer(self, request: bytes) -> dict[str, tuple[bool, str]]:
        """Return the errors that the process answers with: whether there are too many pixels, and a text."""
        try:
            self._process.pipe.send_bytes(request)
            answer: dict[str, tuple[bool, str]] | None = json.loads(self._process.pipe.recv_bytes())
        except OSError:  # it ended between the bytes of a message
            raise EOFError from None
        if answer is None:
            raise MemoryError
        return answer

    def _map(self, num_bytes: int) -> mmap.mmap:
        """Return the memory, with at least so many bytes, at its start."""
        if num_bytes > self._num_bytes:
            try:
                self._resize(-(-num_bytes // _GROWTH_BYTES) * _GROWTH_BYTES)
            except OSError as error:
                raise MemoryError(str(error)) from None
        assert self._mapped is not None
        self._mapped.seek(0)
        return self._mapped

    def _resize(self, num_bytes: int) -> None:
        if self._mapped is not None:
            self._mapped.close()
        self._mapped, self._num_bytes = None, 0
        os.ftruncate(self._memory, num_bytes)
        if num_bytes:
            self._mapped = mmap.mmap(self._memory, num_bytes)
            self._num_bytes = num_bytes

    def end(self) -> None:
        """End the process, and release the memory."""
        self._process.end()
        if self._mapped is not None:
            self._mapped.close()
        os.close(self._memory)


@lru_cache(maxsize=1)
def _rules(model_input: ModelInput) -> dict[str, Any]:
    return {"shape": asdict(model_input.shape), "resize": asdict(model_input.resize)}


def _new_memory() -> int:
    """Return the descriptor of a file in memory, or of a temporary file where the system has none."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("convvae-files")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
