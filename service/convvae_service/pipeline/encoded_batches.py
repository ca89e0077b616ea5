"""Batches that are read, decoded and encoded in threads, in the order of their rows.

Each batch is a task of a thread pool: the thread decodes the batch, waits for a lane of the encoder, and
encodes it. The calling thread takes undecoded rows from the source, gives the oldest finished batch away, and
only then starts a new task. So the number of batches in memory is bounded, whatever the source's length.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

from convvae_service.images import FileDecoder, RejectedRow, Source, UndecodedRows, decode_here
from convvae_service.pipeline.encoder import ImageEncoder
from convvae_service.pipeline.errors import RUN_THREADS, Interrupted, RunFailed
from convvae_service.pipeline.reading import PartEnd
from convvae_service.pipeline.sink import Columns, EncodedRows
from convvae_service.pipeline.thumbnails import thumbnails

__all__ = ["BATCHES_PER_THREAD", "EncodedBatch", "EncodedBatches", "threads_for"]

# Batches in memory per thread: one that is computed, one that waits to be written.
BATCHES_PER_THREAD = 2


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Consecutive images of the source: those that could be read, encoded, and the others."""

    rows: EncodedRows | None
    rejected: tuple[RejectedRow, ...]

    def __len__(self) -> int:
        """Return the number of images, readable or not."""
        return (len(self.rows.ids) if self.rows is not None else 0) + len(self.rejected)

    def divided(self, count: int) -> "tuple[EncodedBatch, EncodedBatch]":
        """Return the first `count` images and the others."""
        first = tuple(row for row in self.rejected if row.place < count)
        others = tuple(replace(row, place=row.place - count) for row in self.rejected[len(first) :])
        if self.rows is None:
            return EncodedBatch(None, first), EncodedBatch(None, others)
        good, end = count - len(first), len(self.rows.ids)
        return (
            EncodedBatch(self.rows.slice(0, good) if good else None, first),
            EncodedBatch(self.rows.slice(good, end) if good < end else None, others),
        )


def threads_for(source: Source, encoder: ImageEncoder, *, decoders: int) -> int:
    """Return the number of threads: one for each lane, and `decoders` more if the source has image files."""
    # Threads that only encode keep a CPU each. More of them would hand it to each other.
    return encoder.lanes + (decoders if source.has_files else 0)


class _UndecodedBatches(Protocol):
    def __iter__(self) -> Iterator[UndecodedRows | PartEnd]: ...

    def close(self) -> None: ...


class EncodedBatches:
    """The batches of a source, encoded in threads and iterated in order, inside a `with` block.

    If the block raises, the waiting tasks are cancelled and the running ones end soon.

    Args:
        undecoded: The batches. They are closed at the end of the block.
        encoder: The encoder. It is checked at the end of each part, and closed if the block raises.
        columns: The columns to compute.
        threads: Number of batches that are read and encoded at the same time.
        decode: Decodes image files.
    """

    def __init__(
        self,
        undecoded: _UndecodedBatches,
        encoder: ImageEncoder,
        *,
        columns: Columns,
        threads: int,
        decode: FileDecoder = decode_here,
    ) -> None:
        self._undecoded = undecoded
        self._encoder = encoder
        self._columns = columns
        self._decode = decode
        self._model_input = encoder.info.input
        self._window = threads * BATCHES_PER_THREAD
        self._lanes = threading.Semaphore(encoder.lanes)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=RUN_THREADS)

    def __iter__(self) -> Iterator[EncodedBatch | PartEnd]:
        window: deque[Future[EncodedBatch] | PartEnd] = deque()
        for rows in self._undecoded:
            window.append(rows if isinstance(rows, PartEnd) else self._submit(rows))
            if len(window) >= self._window:
                yield self._result(window.popleft())
        while window:
            yield self._result(window.popleft())

    def _submit(self, rows: UndecodedRows) -> "Future[EncodedBatch]":
        try:
            return self._pool.submit(self._encode, rows)
        except RuntimeError as error:  # the system starts no further thread
            raise RunFailed(f"{error}: give smaller --threads") from None

    def _encode(self, rows: UndecodedRows) -> EncodedBatch:
        batch = rows.read(self._model_input, self._decode)
        encoded = None
        if batch.ids:
            columns = self._columns
            pictures = thumbnails(batch.images) if columns.thumbnail else ()
            with self._lanes:
                embeddings = self._encoder.encode(
                    batch.images, log_variance=columns.log_variance, score=columns.score
                )
            encoded = EncodedRows(batch.ids, embeddings, batch.kept, pictures)
        return EncodedBatch(encoded, tuple(batch.rejected))

    def _result(self, each: "Future[EncodedBatch] | PartEnd") -> EncodedBatch | PartEnd:
        if isinstance(each, PartEnd):
            # All batches of the part are encoded, and none of them is visible yet.
            self._encoder.check()
            return each
        return each.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._undecoded.close()
            if kind is not None:
                self._encoder.close()
        finally:
            # After a signal, a task that waits for a disk is left to itself: the process ends.
            self._pool.shutdown(wait=kind is not Interrupted, cancel_futures=True)
