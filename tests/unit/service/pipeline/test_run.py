import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convvae_service.images import (
    BadSource,
    FileDecoder,
    ImageBatch,
    ModelInput,
    RejectedRow,
    Source,
    SourceChanged,
    decode_here,
)
from convvae_service.pipeline.duplicate_ids import DuplicateIds
from convvae_service.pipeline.encoded_batches import BATCHES_PER_THREAD
from convvae_service.pipeline.encoder import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import RunFailed
from convvae_service.pipeline.journal import Position
from convvae_service.pipeline.run import RunSettings, embed
from convvae_service.pipeline.sink import EncodedRows
from support.tiny_bundle import TINY_INPUT

START = Position(0, 0)


class Numbers:
    """A shard of `count` images that contain their row number. Some rows are rejected."""

    name = "numbers"
    num_bytes = 0

    def __init__(self, count: int, bad: frozenset[int] = frozenset(), *, stamps: str = "") -> None:
        self.rows, self.bad, self.num_read = count, bad, 0
        self.lock = threading.Lock()
        self.stamps = iter(stamps)

    def stamp(self) -> str:
        return next(self.stamps, "")

    def count(self) -> int:
        return self.rows

    def open(self, start: int) -> "NumbersCursor":
        return NumbersCursor(self, start)

    def read(self, rows: range, model_input: ModelInput) -> ImageBatch:
        with self.lock:
            self.num_read += 1
        good = [row for row in rows if row not in self.bad]
        images = np.zeros((len(good), *model_input.shape.as_tuple), np.uint8)
        images[:, 0, 0, 0] = good
        rejected = [RejectedRow(str(row), "bad") for row in rows if row in self.bad]
        return ImageBatch([str(row) for row in good], images, rejected)


class NumbersCursor:
    """A position among the numbers."""

    left_out: Mapping[str, int] = {".txt": 1}
    fraction = 0.5

    def __init__(self, shard: Numbers, start: int) -> None:
        self.shard, self.next = shard, start

    def take(self, count: int) -> "NumbersRows | None":
        rows = range(self.next, min(self.next + count, self.shard.rows))
        self.next = rows.stop
        return NumbersRows(self.shard, rows) if rows else None

    def close(self) -> None: ...


class NumbersRows:
    """Some of the numbers."""

    def __init__(self, shard: Numbers, rows: range) -> None:
        self.shard, self.rows = shard, rows

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, model_input: ModelInput, decode: FileDecoder = decode_here) -> ImageBatch:
        del decode
        return self.shard.read(self.rows, model_input)


def source_of(*shards: Numbers) -> Source:
    return Source(name="numbers", shards=shards)


class Echo:
    """An encoder whose embedding is the number in the image; earlier rows may take longer."""

    info = EncoderInfo(
        input=TINY_INPUT, version=1, precision="fp32", sha256="", latent_dim=1, has_log_variance=True
    )
    batch_rows = 4

    def __init__(self, lanes: int = 2, broken_at: int = -1, slow: bool = False) -> None:
        self.lanes, self.broken_at, self.slow, self.closed = lanes, broken_at, slow, False
        self.inside = self.most = self.checked = 0
        self.lock = threading.Lock()

    def encode(
        self, images_BHWC: NDArray[np.uint8], *, log_variance: bool, score: bool = False
    ) -> Embeddings:
        assert not score
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

    def check(self) -> None:
        self.checked += 1

    def close(self) -> None:
        self.closed = True


class Memory:
    """An output that stores its rows in memory."""

    rows = failed = 0
    left_out: Mapping[str, int] = {}
    kept = failed_table = ""
    repeated = DuplicateIds(0, ())

    def __init__(self, part_rows: int | None = None, start: Position = START) -> None:
        self.part_rows, self.start = part_rows, start
        self.ids: list[str] = []
        self.values: list[float] = []
        self.rejected: list[str] = []
        self.ends: list[tuple[int, Position]] = []
        self.finished: dict[str, int] | None = None
        self.open = True

    def write(self, rows: EncodedRows) -> None:
        self.ids += rows.ids
        self.values += rows.embeddings.mean[:, 0].tolist()

    def reject(self, rows: Sequence[RejectedRow]) -> None:
        self.rejected += [row.id for row in rows]

    def end_part(self, end: Position, left_out: Mapping[str, int]) -> None:
        assert set(left_out) <= {".txt"}
        self.ends.append((len(self.ids) + len(self.rejected), end))

    def finish(self, left_out: Mapping[str, int]) -> int:
        self.finished = dict(left_out)
        return 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: Any) -> None:
        self.open = False


class Told:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.done = 0
        self.expected: int | None = None

    def resume(self, images: int) -> None: ...

    def advance(self, rows: int, failed: int, *, expected: int | None) -> None:
        self.done += rows + failed
        self.expected = expected


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
    sink = Memory()
    progress = Told()
    run = RunSettings(batch_rows=batch_rows, threads=threads, max_failed=None)
    if not good:
        with pytest.raises(BadSource, match=r"none of the .* images of numbers can be read"):
            embed(source_of(Numbers(count, bad)), Echo(slow=True), sink, run)
        assert sink.finished is None
        return
    done = embed(source_of(Numbers(count, bad)), Echo(slow=True), sink, run, progress=progress)
    assert sink.ids == [str(row) for row in good]
    assert sink.values == good
    assert done.rows == len(good)
    expected = [str(row) for row in sorted(bad) if row < count]
    assert [row.id for row in done.first_failed] == sink.rejected == expected
    assert done.failed == len(expected)
    assert sink.finished == {".txt": 1}
    assert (progress.done, progress.expected) == (count, count)


def test_slow_sink_holds_reading_back() -> None:
    """The number of batches in memory does not depend on the length of the source."""
    source, reads_at_write = Numbers(200), []

    class Slow(Memory):
        def write(self, rows: EncodedRows) -> None:
            super().write(rows)
            time.sleep(0.005)
            reads_at_write.append(source.num_read - len(self.ids))

    threads = 3
    embed(source_of(source), Echo(), Slow(), RunSettings(batch_rows=1, threads=threads))
    # The one that is being written is among them.
    assert max(reads_at_write) <= threads * BATCHES_PER_THREAD - 1
    assert max(reads_at_write) >= threads


def test_encoder_is_called_by_as_many_threads_as_it_has_lanes() -> None:
    """The encoder never gets more calls at the same time than it has lanes."""
    encoder = Echo(lanes=2, slow=True)
    embed(source_of(Numbers(60)), encoder, Memory(), RunSettings(batch_rows=2, threads=6))
    assert encoder.most == 2


def test_first_bad_row_ends_the_run() -> None:
    """The first bad row in the source's order is named, and the sink is not finished."""
    sink, encoder = Memory(), Echo()
    with pytest.raises(BadSource, match=r"^7: bad \(--on-error skip leaves such files out\)$"):
        embed(
            source_of(Numbers(30, frozenset({7, 8, 20}))), encoder, sink, RunSettings(batch_rows=3, threads=4)
        )
    assert sink.finished is None
    assert not sink.open
    assert encoder.closed


def test_broken_encoder_ends_the_run() -> None:
    """The sink is not finished, and no thread is left."""
    sink = Memory()
    with pytest.raises(RunFailed, match="broken"):
        embed(source_of(Numbers(100)), Echo(broken_at=50), sink, RunSettings(batch_rows=3, threads=4))
    assert sink.finished is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embed")]


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    batch_rows=st.integers(1, 9),
    part_rows=st.integers(1, 25),
    bad=st.frozensets(st.integers(0, 19), max_size=3),
)
def test_parts_end_after_equal_numbers_of_images(
    counts: list[int], batch_rows: int, part_rows: int, bad: frozenset[int]
) -> None:
    """A run from the end of any part writes what is missing, with the same ends of parts."""
    run = RunSettings(batch_rows=batch_rows, threads=2, max_failed=None)
    total = sum(counts)
    whole = Memory(part_rows)
    if not any(row not in bad for count in counts for row in range(count)):
        return
    embed(source_of(*(Numbers(count, bad) for count in counts)), Echo(), whole, run)
    assert [done for done, _ in whole.ends] == [*range(part_rows, total, part_rows), total]
    for done, end in whole.ends[:-1]:
        rest = Memory(part_rows, start=end)
        rest.rows = 1
        embed(source_of(*(Numbers(count, bad) for count in counts)), Echo(), rest, run)
        written = len(whole.ids) - len(rest.ids)
        assert rest.ids == whole.ids[written:]
        assert rest.rejected == whole.rejected[done - written :]
        assert [end for _, end in rest.ends] == [end for at, end in whole.ends if at > done]


def test_the_encoder_is_checked_before_each_part_is_written() -> None:
    """A part with rows of another encoder, under the same name, does not appear."""

    class Replaced(Echo):
        def check(self) -> None:
            super().check()
            if self.checked == 3:
                raise RunFailed("replaced")

    sink, replaced = Memory(part_rows=10), Replaced()
    with pytest.raises(RunFailed, match="replaced"):
        embed(source_of(Numbers(50)), replaced, sink, RunSettings(batch_rows=3, threads=2))
    assert [done for done, _ in sink.ends] == [10, 20]
    assert replaced.closed
    encoder = Echo()
    embed(source_of(Numbers(50)), encoder, Memory(), RunSettings(batch_rows=3, threads=2))
    assert encoder.checked == 1


def test_shard_that_changes_during_the_run_ends_it() -> None:
    """The stamp at the end of a shard must be that of the start of the run."""
    sink = Memory(part_rows=10)
    with pytest.raises(SourceChanged, match="numbers has changed since the run began"):
        embed(source_of(Numbers(25, stamps="ab")), Echo(), sink, RunSettings(batch_rows=3, threads=2))
    assert sink.finished is None


def test_damage_by_a_change_is_called_a_change() -> None:
    """An image that cannot be read any more, because its shard has changed, is no reason to continue."""
    source = source_of(Numbers(10), Numbers(25, frozenset({3}), stamps="ab"))
    with pytest.raises(SourceChanged, match="numbers has changed since the run began"):
        embed(source, Echo(), Memory(part_rows=10), RunSettings(batch_rows=3, threads=2))


def test_some_images_may_fail() -> None:
    """The run ends when one more image fails than may, and says how many."""
    run = RunSettings(batch_rows=3, threads=2, max_failed=2)
    done = embed(source_of(Numbers(30, frozenset({3, 9}))), Echo(), Memory(), run)
    assert (done.rows, done.failed) == (28, 2)
    with pytest.raises(
        BadSource, match=r"^3 images cannot be read, such as 20: bad \(more than --on-error 2\)$"
    ):
        embed(source_of(Numbers(30, frozenset({3, 9, 20}))), Echo(), Memory(), run)
