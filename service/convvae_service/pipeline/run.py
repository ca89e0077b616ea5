"""One run: batches are read, encoded and written at the same time, and written in order.

Each batch is one task of a pool: a thread reads it, waits for a lane of the encoder, and encodes it. The
calling thread writes what is finished, oldest first, and only then starts as many again: so many batches are
in memory at most, however long the source is.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from convvae_service.images import BadSource, RejectedRow, Source
from convvae_service.pipeline.encoders import Embeddings, Encoder
from convvae_service.pipeline.sink import Sink

__all__ = ["Done", "RunSettings", "embed"]

# Batches in memory for each thread: one in work, one that waits to be written.
BATCHES_PER_THREAD = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """How a run goes.

    Attributes:
        batch_rows: Rows in one call of the encoder.
        threads: Batches that are read and encoded at one time.
        log_variance: Whether to store the log-variances too.
        skip: Whether to leave out rows that cannot be read, instead of failing.
    """

    batch_rows: int
    threads: int
    log_variance: bool = False
    skip: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What a run did: rows written, rows left out, its wall time in seconds, and the sink's bytes."""

    rows: int
    skipped: tuple[RejectedRow, ...]
    seconds: float
    num_bytes: int


@dataclass(frozen=True, slots=True)
class _Encoded:
    ids: list[str]
    embeddings: Embeddings | None
    rejected: tuple[RejectedRow, ...]


def embed(
    source: Source,
    encoder: Encoder,
    sink: Sink,
    settings: RunSettings,
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> Done:
    """Encode every row of `source` into `sink`, and finish it, or remove it when that fails.

    Args:
        source: Where images come from.
        encoder: What encodes them; closed when the run fails.
        sink: Where embeddings go.
        settings: How.
        advance: Called with the rows that were just done with.

    Raises:
        PipelineError: The run failed; nothing of `sink` is left.
    """
    started_s = time.perf_counter()
    rows = 0
    skipped: list[RejectedRow] = []
    # A run that fails removes its file first, and then waits for its threads.
    with _in_order(source, encoder, settings) as batches, sink:
        for batch in batches:
            if batch.embeddings is not None:
                sink.write(batch.ids, batch.embeddings)
            rows += len(batch.ids)
            skipped += batch.rejected
            advance(len(batch.ids) + len(batch.rejected))
        if not rows:
            raise BadSource(f"none of the {len(skipped)} images of {source.name} can be read")
        num_bytes = sink.finish({"convvae.rows": str(rows), "convvae.skipped": str(len(skipped))})
    return Done(rows, tuple(skipped), time.perf_counter() - started_s, num_bytes)


@contextmanager
def _in_order(source: Source, encoder: Encoder, settings: RunSettings) -> Iterator[Iterator[_Encoded]]:
    """Run the tasks; leaving the block early cancels those that wait and ends those in work."""
    lanes = threading.Semaphore(encoder.lanes)
    model_input = encoder.info.input

    def work(rows: range) -> _Encoded:
        batch = source.read(rows, model_input)
        if batch.rejected and not settings.skip:
            bad = batch.rejected[0]
            raise BadSource(f"{bad.id}: {bad.reason}")
        embeddings = None
        if batch.ids:
            with lanes:
                embeddings = encoder.encode(batch.images, log_variance=settings.log_variance)
        return _Encoded(list(batch.ids), embeddings, tuple(batch.rejected))

    def results() -> Iterator[_Encoded]:
        window: deque[Future[_Encoded]] = deque()
        for start in range(0, len(source), settings.batch_rows):
            window.append(pool.submit(work, range(start, min(start + settings.batch_rows, len(source)))))
            if len(window) == settings.threads * BATCHES_PER_THREAD:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()

    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="embed")
    try:
        yield results()
    except BaseException:
        encoder.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
