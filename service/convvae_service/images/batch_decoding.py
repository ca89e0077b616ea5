"""Many image files decoded in threads, with one future for all of them."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.decode import decode_file
from convvae_service.images.decoding_threads import DecodingThreads
from convvae_service.images.header import InvalidImage, LargeFile
from convvae_service.images.webp import is_webp

__all__ = ["InvalidImages", "decode_files"]

# A turn in a thread. It is long beside the 20 us that a turn costs, and short for the calls that wait.
_TURN_S = 0.002
# Files of fewer bytes are decoded before a second thread would wake up.
_BYTES_PER_TASK = 1 << 16


class InvalidImages(ValueError):
    """Some files are not images that the model can take.

    Attributes:
        reasons: The reason for each bad file, by its index, in ascending order.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        self.reasons = dict(sorted(reasons.items()))
        super().__init__("; ".join(f"files[{index}]: {reason}" for index, reason in self.reasons.items()))


def decode_files(
    files: Sequence[bytes],
    *,
    shape: ImageShape,
    resize: Resize,
    max_pixels: int,
    threads: DecodingThreads,
    at_once: int,
) -> "Future[NDArray[np.uint8]]":
    """Decode files with `decode_file` in threads, and return a future for all of them.

    The threads take turns: after about 2 ms a task goes to the end of the executor's queue, so that files of
    other calls are decoded in between. A large file waits for room, in a turn of its own. If the future is
    cancelled, no further file is decoded, and the files and pixels are released.

    Args:
        files: The contents of JPEG, PNG or WebP files.
        shape: The model's image shape.
        resize: The rule for images of another size.
        max_pixels: Largest width x height of a file, checked before it is decoded.
        threads: The threads. If their executor is shut down, the future is cancelled or fails.
        at_once: Maximum number of these files that are decoded at the same time, at least 1.

    Returns:
        A future of uint8 (B, H, W, C), one row for each file in order. It fails with `InvalidImages` if some
        files are bad, and with the first other error that a file causes.
    """
    result: Future[NDArray[np.uint8]] = Future()
    decoding = _Decoding(files, shape, resize, max_pixels, threads, result)
    result.add_done_callback(decoding.release)
    num_bytes = sum(map(len, files))
    decoding.start(max(1, min(at_once, len(files), 1 + num_bytes // _BYTES_PER_TASK)))
    return result


class _Decoding:
    """The tasks that decode the files of one call. Each takes the next file that no other has taken."""

    def __init__(
        self,
        files: Sequence[bytes],
        shape: ImageShape,
        resize: Resize,
        max_pixels: int,
        threads: DecodingThreads,
        result: "Future[NDArray[np.uint8]]",
    ) -> None:
        self._files = files
        self._next = 0
        self._images: NDArray[np.uint8] | None = np.empty((len(files), *shape.as_tuple), np.uint8)
        self._rules: Any = {"shape": shape, "resize": resize, "max_pixels": max_pixels}
        self._threads = threads
        # None when it is set or cancelled: the result holds this object, by its callback.
        self._result: Future[NDArray[np.uint8]] | None = result
        self._reasons: dict[int, str] = {}
        self._lock = Lock()
        self._num_tasks = 0

    def start(self, num_tasks: int) -> None:
        """Queue this number of tasks."""
        self._num_tasks = num_tasks
        for _ in range(num_tasks):
            self._queue_turn()

    def release(self, _: object) -> None:
        """Drop the files and pixels: the result is known, or nobody waits for it."""
        self._claim_result()
        with self._lock:
            self._files, self._images = (), None

    def _queue_turn(self) -> None:
        try:
            turn = self._threads.submit(self._take_turn)
        except RuntimeError as error:  # the executor is shut down
            self._fail(error)
        else:
            turn.add_done_callback(self._follow)

    def _queue_large(self, index: int, num_bytes: int) -> None:
        turn = self._threads.submit_large(partial(self._take_large_turn, index), num_bytes)
        turn.add_done_callback(self._follow)

    def _follow(self, turn: "Future[None]") -> None:
        """Cancel the result if the executor has cancelled a turn, since its files will be missing."""
        result = self._result
        if turn.cancelled() and result is not None:
            result.cancel()

    def _take_turn(self) -> None:
        """Decode files until the turn is over, then queue the next turn."""
        end_s = time.monotonic() + _TURN_S
        try:
            while (index := self._next_index()) is not None:
                try:
                    self._decode(index, small_only=True)
                except LargeFile as large:
                    self._queue_large(index, large.num_bytes)
                    return
                if time.monotonic() >= end_s and self._next < len(self._files):
                    self._queue_turn()
                    return
        except BaseException as error:  # noqa: BLE001 - the caller that waits for the result must see it
            self._fail(error)
            return
        self._end_task()

    def _take_large_turn(self, index: int) -> None:
        """Decode a large file, then queue the next turn."""
        try:
            self._decode(index, small_only=False)
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(error)
            return
        if self._next < len(self._files):
            self._queue_turn()
        else:
            self._end_task()

    def _next_index(self) -> int | None:
        """Return the index of a file that no other task has taken, or None."""
        with self._lock:
            index = self._next
            self._next += 1
            return index if index < len(self._files) else None

    def _decode(self, index: int, *, small_only: bool) -> None:
        """Decode one file. If the result is released, do nothing."""
        # `release` may run between these lines: it drops both.
        files, images = self._files, self._images
        if not files or images is None:
            return
        file, rules = files[index], self._rules
        try:
            if small_only:
                images[index] = decode_file(file, **rules, small_only=True)
            elif is_webp(file):
                images[index] = self._threads.child.decode(file, **rules)
            else:
                images[index] = decode_file(file, **rules)
        except InvalidImage as error:
            self._reasons[index] = str(error)

    def _end_task(self) -> None:
        """Count a task that has found no further file. The last one sets the result."""
        with self._lock:
            self._num_tasks -= 1
            is_last, images = not self._num_tasks, self._images
        if not is_last or images is None:
            return
        if self._reasons:
            self._fail(InvalidImages(self._reasons))
        elif (result := self._claim_result()) is not None:
            result.set_result(images)

    def _fail(self, error: BaseException) -> None:
        if (result := self._claim_result()) is not None:
            result.set_exception(error)

    def _claim_result(self) -> "Future[NDArray[np.uint8]] | None":
        """Return the result for the caller to set, or None if somebody has set or cancelled it before."""
        with self._lock:
            result, self._result = self._result, None
        return result if result is not None and result.set_running_or_notify_cancel() else None
