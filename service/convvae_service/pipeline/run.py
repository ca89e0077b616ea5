"""One run: it reads, encodes and writes batches at the same time, and keeps the order of the rows.

Each batch is a task of a thread pool: the thread decodes the batch, waits for a lane of the encoder, and
encodes it. The calling thread takes undecoded rows from the source, writes the oldest finished batch, and
only then starts a new task. So the number of batches in memory is bounded, whatever the source's length.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from convvae_service.images import BadSource, RejectedRow, Source, UndecodedRows
from convvae_service.pipeline.encoder import ImageEncoder
from convvae_service.pipeline.errors import RUN_THREADS, Interrupted
from convvae_service.pipeline.output import RunOutput
from convvae_service.pipeline.progress import Progress, SilentProgress
from convvae_service.pipeline.reading import PartEnd, Reading
from convvae_service.pipeline.sink import Columns, EncodedRows
from convvae_service.pipeline.summary import RunSummary
from convvae_service.pipeline.thumbnails import thumbnails

__all__ = ["RunSettings", "embed"]

# Batches in memory per thread: one that is computed, one that waits to be written.
BATCHES_PER_THREAD = 2
# Failed images that the summary names. The table of failed images has all of them.
MAX_NAMED = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """The settings of a run.

    Attributes:
        batch_rows: Rows per call of the encoder.
        threads: Number of batches that are read and encoded at the same time.
        columns: The columns to compute.
        max_failed: Number of images that may fail to be read; None for any number.
    """

    batch_rows: int
    threads: int
    columns: Columns = Columns()  # noqa: RUF009 - it is frozen
    max_failed: int | None = 0


class _EncodedBatch(NamedTuple):
    rows: EncodedRows | None
    rejected: tuple[RejectedRow, ...]


def embed(
    source: Source,
    encoder: ImageEncoder,
    output: RunOutput,
    settings: RunSettings,
    *,
    progress: Progress | None = None,
) -> RunSummary:
    """Encode every row of `source` and write it to `output`.

    Args:
        source: The images.
        encoder: The encoder. It is closed if the run fails.
        output: Where the rows go, and where the run begins. It is finished at the end.
        settings: The settings of the run.
        progress: Is told of each completed batch.

    Raises:
        PipelineError: The run failed; a file does not exist, and a folder has its complete parts.
    """
    started_s = time.perf_counter()
    progress = progress or SilentProgress()
    resumed_rows, resumed_failed = output.rows, output.failed
    rows = num_failed = 0
    failed: list[RejectedRow] = []
    reading = Reading(source, output, batch_rows=settings.batch_rows)
    progress.resume(resumed_rows + resumed_failed)
    # If the run fails, the output removes its file before the threads are joined.
    with _EncodedBatches(reading, encoder, settings) as batches, output:
        for batch in batches:
            if isinstance(batch, PartEnd):
                output.end_part(batch.end, batch.left_out)
                continue
            if batch.rejected:
                num_failed += len(batch.rejected)
                _check_failed(batch.rejected[0], resumed_failed + num_failed, settings.max_failed)
                failed += batch.rejected[: MAX_NAMED - len(failed)]
                output.reject(batch.rejected)
            if batch.rows is not None:
                output.write(batch.rows)
                rows += len(batch.rows.ids)
            progress.advance(
                len(batch.rows.ids) if batch.rows is not None else 0,
                len(batch.rejected),
                expected=reading.expected_rows(),
            )
        if not rows + resumed_rows:
            total = num_failed + resumed_failed
            found = f"none of the {total} images of {source.name} can be read"
            others = f"; {reading.left_out()}" if reading.left_out().counts else ""
            raise BadSource(found if total else f"no images in {source.name}{others}")
        left_out = reading.left_out()
        num_bytes = output.finish(left_out.counts)
    return RunSummary(
        rows=rows,
        resumed=resumed_rows,
        failed=num_failed + resumed_failed,
        first_failed=tuple(failed),
        left_out=left_out,
        seconds=time.perf_counter() - started_s,
        num_bytes=num_bytes,
        repeated_ids=output.repeated.count,
    )


def _check_failed(row: RejectedRow, num_failed: int, max_failed: int | None) -> None:
    """Raise `BadSource` if more images have failed than may."""
    if max_failed is None or num_failed <= max_failed:
        return
    many = f"{num_failed} images cannot be read, such as " if max_failed else ""
    hint = f"more than --on-error {max_failed}" if max_failed else "--on-error skip leaves such files out"
    raise BadSource(f"{many}{row.id}: {row.reason} ({hint})")


class _EncodedBatches:
    """The batches of a source, encoded in threads and iterated in order, inside a `with` block.

    If the block raises, the waiting tasks are cancelled and the running ones end soon.
    """

    def __init__(self, reading: Reading, encoder: ImageEncoder, settings: RunSettings) -> None:
        self._reading = reading
        self._encoder = encoder
        self._columns = settings.columns
        self._model_input = encoder.info.input
        self._window = settings.threads * BATCHES_PER_THREAD
        self._lanes = threading.Semaphore(encoder.lanes)
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix=RUN_THREADS)

    def __iter__(self) -> Iterator[_EncodedBatch | PartEnd]:
        window: deque[Future[_EncodedBatch] | PartEnd] = deque()
        for rows in self._reading:
            window.append(rows if isinstance(rows, PartEnd) else self._pool.submit(self._encode, rows))
            if len(window) >= self._window:
                yield _result(window.popleft())
        while window:
            yield _result(window.popleft())

    def _encode(self, rows: UndecodedRows) -> _EncodedBatch:
        batch = rows.read(self._model_input)
        encoded = None
        if batch.ids:
            columns = self._columns
            pictures = thumbnails(batch.images) if columns.thumbnail else ()
            with self._lanes:
                embeddings = self._encoder.encode(
                    batch.images, log_variance=columns.log_variance, score=columns.score
                )
            encoded = EncodedRows(batch.ids, embeddings, batch.kept, pictures)
        return _EncodedBatch(encoded, tuple(batch.rejected))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._reading.close()
            if kind is not None:
                self._encoder.close()
        finally:
            # After a signal, a task that waits for a disk is left to itself: the process ends.
            self._pool.shutdown(wait=kind is not Interrupted, cancel_futures=True)


def _result(each: "Future[_EncodedBatch] | PartEnd") -> _EncodedBatch | PartEnd:
    return each if isinstance(each, PartEnd) else each.result()
