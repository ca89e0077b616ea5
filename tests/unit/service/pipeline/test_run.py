import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convvae_service.images import BadSource, ImageBatch, LeftOut, ModelInput, RejectedRow
from convvae_service.pipeline.encoder import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import RunFailed
from convvae_service.pipeline.run import BATCHES_PER_THREAD, RunSettings, embed
from support.tiny_bundle import TINY_INPUT


class Numbers:
    """A source of `count` images that contain their row number. Some rows are rejected."""

    name = "numbers"
    left_out = LeftOut()

    def __init__(self, count: int, bad: frozenset[int] = frozenset()) -> None:
        self.count, self.bad, self.num_read = count, bad, 0
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return self.count

    def check(self, model_input: ModelInput) -> None:
        pass

    def read(self, rows: range, model_input: ModelInput) -> ImageBatch:
        with self.lock:
            self.num_read += 1
        good = [row for row in rows if row not in self.bad]
        images = np.zeros((len(good), *model_input.shape.as_tuple), np.uint8)
        images[:, 0, 0, 0] = good
        rejected = [RejectedRow(str(row), "bad") for row in rows if row in self.bad]
        return ImageBatch([str(row) for row in good], images, rejected)


class Echo:
    """An encoder whose embedding is the number in the image; earlier rows may take longer."""

    info = EncoderInfo(
        input=TINY_INPUT, version=1, precision="fp32", sha256="", latent_dim=1, has_log_variance=True
    )
    batch_rows = 4

    def __init__(self, lanes: int = 2, broken_at: int = -1, slow: bool = False) -> None:
        self.lanes, self.broken_at, self.slow, self.closed = lanes, broken_at, slow, False
        self.inside = self.most = 0
        self.lock = threading.Lock()

    def encode(self, images_BHWC: NDArray[np.uint8], *, log_variance: bool) -> Embeddings:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        mean = images_BHWC[:, 0, 0].astype(np.float32)
        if self.slow:
            time.sleep(0.002 * float(mean[0, 0] % 3))
        with self.lock:
            self.inside -= 1
        if self.broken_at in mean:
            raise RunFailed("broken")
        return Embeddings(mean, mean if log_variance else None)

    def close(self) -> None:
        self.closed = True


class Rows:
    """A sink that stores its rows in memory."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.values: list[float] = []
        self.extra: dict[str, str] | None = None
        self.open = True

    def write(self, ids: Sequence[str], embeddings: Embeddings) -> None:
        self.ids += ids
        self.values += embeddings.mean[:, 0].tolist()

    def finish(self, extra: Mapping[str, str]) -> int:
        self.extra = dict(extra)
        return 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: Any) -> None:
        self.open = False


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 60),
    batch_rows=st.integers(1, 20),
    threads=st.integers(1, 5),
    bad=st.frozensets(st.integers(0, 59), max_size=5),
)
def test_rows_keep_their_order(count: int, batch_rows: int, threads: int, bad: frozenset[int]) -> None:
    """For any batches and threads, every good row is written once, in order, with its id."""
    good = [row for row in range(count) if row not in bad]
    sink = Rows()
    progress: list[int] = []
    run = RunSettings(batch_rows=batch_rows, threads=threads, skip=True)
    if not good:
        with pytest.raises(BadSource, match=r"none of the .* images of numbers can be read"):
            embed(Numbers(count, bad), Echo(slow=True), sink, run)
        assert sink.extra is None
        return
    done = embed(Numbers(count, bad), Echo(slow=True), sink, run, advance=progress.append)
    assert sink.ids == [str(row) for row in good]
    assert sink.values == good
    assert done.rows == len(good)
    assert [row.id for row in done.skipped] == [str(row) for row in sorted(bad) if row < count]
    assert sink.extra == {"convvae.rows": str(len(good)), "convvae.skipped": str(len(done.skipped))}
    assert sum(progress) == count


def test_slow_sink_holds_reading_back() -> None:
    """The number of batches in memory does not depend on the length of the source."""
    source, reads_at_write = Numbers(200), []

    class Slow(Rows):
        def write(self, ids: Sequence[str], embeddings: Embeddings) -> None:
            super().write(ids, embeddings)
            time.sleep(0.005)
            reads_at_write.append(source.num_read - len(self.ids))

    threads = 3
    embed(source, Echo(), Slow(), RunSettings(batch_rows=1, threads=threads))
    # The one that is being written is among them.
    assert max(reads_at_write) <= threads * BATCHES_PER_THREAD - 1
    assert max(reads_at_write) >= threads


def test_encoder_is_called_by_as_many_threads_as_it_has_lanes() -> None:
    """The encoder never gets more calls at the same time than it has lanes."""
    encoder = Echo(lanes=2, slow=True)
    embed(Numbers(60), encoder, Rows(), RunSettings(batch_rows=2, threads=6))
    assert encoder.most == 2


def test_first_bad_row_ends_the_run() -> None:
    """The first bad row in the source's order is named, and the sink is not finished."""
    sink, encoder = Rows(), Echo()
    with pytest.raises(BadSource, match=r"^7: bad \(--on-error skip leaves such files out\)$"):
        embed(Numbers(30, frozenset({7, 8, 20})), encoder, sink, RunSettings(batch_rows=3, threads=4))
    assert sink.extra is None
    assert not sink.open
    assert encoder.closed


def test_broken_encoder_ends_the_run() -> None:
    """The sink is not finished, and no thread is left."""
    sink = Rows()
    with pytest.raises(RunFailed, match="broken"):
        embed(Numbers(100), Echo(broken_at=50), sink, RunSettings(batch_rows=3, threads=4))
    assert sink.extra is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embed")]
