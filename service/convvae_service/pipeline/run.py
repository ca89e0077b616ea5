"""One run: it reads, encodes and writes batches at the same time, and keeps the order of the rows.

Each batch is a task of a thread pool: the thread reads the batch, waits for a lane of the encoder, and
encodes it. The calling thread writes the oldest finished batch and only then starts a new task. So the number
of batches in memory is bounded, whatever the length of the source.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from convvae_service.images import BadSource, RejectedRow, Source
from convvae_service.pipeline.encoder import Embeddings, ImageEncoder
from convvae_service.pipeline.errors import RUN_THREADS, Interrupted
from convvae_service.pipeline.sink import Sink
from convvae_service.pipeline.summary import RunSummary

__all__ = ["RunSettings", "embed"]

# Batches in memory per thread: one that is computed, one that waits to be written.
BATCHES_PER_THREAD = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """The settings of a run.

    Attributes:
        batch_rows: Rows per call of the encoder.
        threads: Number of batches that are read and encoded at the same time.
        log_variance: Whether to store log-variances too.
        skip: Whether to skip rows that cannot be read. Otherwise the run fails.
    """

    batch_rows: int
    threads: int
    log_variance: bool = False
    skip: bool = False


@dataclass(frozen=True, slots=True)
class _EncodedBatch:
    ids: list[str]
    embeddings: Embeddings | None
    rejected: tuple[RejectedRow, ...]


def embed(
    source: Source,
    encoder: ImageEncoder,
    sink: Sink,
    settings: RunSettings,
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> RunSummary:
    """Encode every row of `source` and write it to `sink`.

    Args:
        source: The images.
        encoder: The encoder. It is closed if the run fails.
        sink: The file to write. It is finished at the end, or removed if the run fails.
        settings: The settings of the run.
        advance: Called with the number of rows of each completed batch.

    Raises:
        PipelineError: The run failed; the sink does not exist.
    """
    started_s = time.perf_counter()
    rows = 0
    skipped: list[RejectedRow] = []
    # If the run fails, the sink removes its file before the threads are joined.
    with _EncodedBatches(source, encoder, settings) as batches, sink:
        for batch in batches:
            if batch.embeddings is not None:
                sink.write(batch.ids, batch.embeddings)
            rows += len(batch.ids)
            skipped += batch.rejected
            advance(len(batch.ids) + len(batch.rejected))
        if not rows:
            raise BadSource(f"none of the {len(skipped)} images of {source.name} can be read")
        num_bytes = sink.finish({"convvae.rows": str(rows), "convvae.skipped": str(len(skipped))})
    return RunSummary(
        rows, tuple(skipped), source.left_out.counts, time.perf_counter() - started_s, num_bytes
    )


class _EncodedBatches:
    """The batches of a source, encoded in threads and iterated in order, inside a `with` block.

    If the block raises, the waiting tasks are cancelled and the running ones end soon.
    """

    def __init__(self, source: Source, encoder: ImageEncoder, settings: RunSettings) -> None:
        self._source = source
        self._encoder = encoder
        self._settings = settings
        self._model_input = encoder.info.input
        self._lanes = threading.Semaphore(encoder.lanes)
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix=RUN_THREADS)

    def __iter__(self) -> Iterator[_EncodedBatch]:
        total, step = len(self._source), self._settings.batch_rows
        window: deque[Future[_EncodedBatch]] = deque()
        for start in range(0, total, step):
            window.append(self._pool.submit(self._encode, range(start, min(start + step, total))))
            if len(window) == self._settings.threads * BATCHES_PER_THREAD:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()

    def _encode(self, rows: range) -> _EncodedBatch:
        batch = self._source.read(rows, self._model_input)
        if batch.rejected and not self._settings.skip:
            bad = batch.rejected[0]
            raise BadSource(f"{bad.id}: {bad.reason} (--on-error skip leaves such files out)")
        embeddings = None
        if batch.ids:
            with self._lanes:
                embeddings = self._encoder.encode(batch.images, log_variance=self._settings.log_variance)
        return _EncodedBatch(list(batch.ids), embeddings, tuple(batch.rejected))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._encoder.close()
        finally:
            # After a signal, a task that waits for a disk is left to itself: the process ends.
            self._pool.shutdown(wait=kind is not Interrupted, cancel_futures=True)
