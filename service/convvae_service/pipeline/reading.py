"""The rows of a source, in the order and pieces that a run takes them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from convvae_service.images import Cursor, LeftOut, Source, SourceChanged, UndecodedRows, left_out_of
from convvae_service.pipeline.journal import Position
from convvae_service.pipeline.output import RunOutput

__all__ = ["PartEnd", "Reading"]


class PartEnd(NamedTuple):
    """The end of a part: the position of the next row, and what was left out before its shard."""

    end: Position
    left_out: Mapping[str, int]


class Reading:
    """Undecoded rows from the start of an output on, with the end of each part among them.

    A part has a fixed number of images, and its batches begin anew with it. So a resumed run has the batches
    that an undisturbed run has.

    Raises:
        BadSource: While iterated: a shard is damaged.
        SourceChanged: While iterated: a shard has changed since the run began.
    """

    def __init__(self, source: Source, output: RunOutput, *, batch_rows: int) -> None:
        self._source = source
        self._stamps = source.stamps
        self._start = output.start
        self._part_rows = output.part_rows
        self._batch_rows = batch_rows
        self._index = self._start.shard
        self._cursor: Cursor | None = None
        self._passed: Counter[str] = Counter(output.left_out)
        self._taken = 0
        self._rows = source.rows
        weights = [max(1, shard.num_bytes) for shard in source.shards]
        self._weights = [weight / sum(weights) for weight in weights]
        # The part of the source, by size, that is read now, and that was read by runs before.
        self._fraction = self._skipped = 0.0

    def __iter__(self) -> Iterator[UndecodedRows | PartEnd]:
        filled = 0
        for index in range(self._start.shard, len(self._source.shards)):
            self._index = index
            first = self._start.row if index == self._start.shard else 0
            row = first
            shard = self._source.shards[index]
            before = sum(self._weights[:index])
            self._cursor = cursor = shard.open(first)
            if not self._taken:
                self._skipped = before + self._weights[index] * cursor.fraction
            while (rows := cursor.take(self._room(filled))) is not None:
                filled += len(rows)
                row += len(rows)
                self._taken += len(rows)
                self._fraction = before + self._weights[index] * cursor.fraction
                yield rows
                if filled == self._part_rows:
                    yield PartEnd(Position(index, row), dict(self._passed))
                    filled = 0
            self._passed.update(cursor.left_out)
            self.close()
            self._check(index)
        if filled:
            yield PartEnd(Position(len(self._source.shards), 0), dict(self._passed))

    def _check(self, index: int) -> None:
        shard = self._source.shards[index]
        if shard.stamp() != self._stamps[index]:
            raise SourceChanged(f"{shard.name} has changed since the run began")

    def check_unchanged(self) -> None:
        """Check the shards that rows in work may be of, after an error: the damage may be a change.

        Raises:
            SourceChanged: One has changed since the run began.
        """
        for index in range(max(self._start.shard, self._index - 1), self._index + 1):
            with suppress(OSError):  # it is gone, as the error says
                self._check(index)

    def _room(self, filled: int) -> int:
        return (
            self._batch_rows if self._part_rows is None else min(self._batch_rows, self._part_rows - filled)
        )

    def expected_rows(self) -> int | None:
        """Return the number of rows in all, exactly or estimated from sizes, or None if it is unknown."""
        if self._rows is not None:
            return self._rows
        done = self._fraction - self._skipped
        return None if done <= 0 else round(self._taken / done)

    def left_out(self) -> LeftOut:
        """Return the entries that are not rows, of the shards that are read to their ends."""
        known = self._source.left_out
        return left_out_of(self._passed + Counter(known.counts), known.irregular)

    def close(self) -> None:
        """Release the file that is read. It may be called again."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()
