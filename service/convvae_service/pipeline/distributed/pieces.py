"""The pieces of a source: what one worker encodes at a time."""

from collections.abc import Sequence
from typing import NamedTuple

from convvae_service.images import Source
from convvae_service.pipeline.journal import Position

__all__ = ["TO_END", "Piece", "PiecePlan", "plan_pieces"]

# In place of a number of rows: all rows to the end of the shard.
TO_END = -1
# A killed worker loses the work of one piece. Each costs some milliseconds beside its work.
_BATCHES = 16
_MAX_PIECES = 20_000
# Each piece of an archive reads the headers before it again.
_PIECES_PER_WORKER = 4


class Piece(NamedTuple):
    """Consecutive rows of one shard: a number of them, or all others of the shard for `TO_END`."""

    shard: int
    first: int
    rows: int


class PiecePlan(NamedTuple):
    """The pieces of a run in order, and the number of their rows, or None if only reading tells it."""

    pieces: Sequence[Piece]
    rows: int | None


def plan_pieces(
    source: Source, start: Position, *, batch_rows: int, part_rows: int | None, workers: int
) -> PiecePlan:
    """Divide the rows of a source from `start` on.

    A shard of unknown length is one piece, unless there are too few shards for the workers. A piece ends
    where a part ends, as far as the lengths are known. Then the batches are those of a run without workers.

    Raises:
        BadSource: A shard is damaged.
    """
    shards = source.shards[start.shard :]
    lengths = [
        shard.count() if shard.rows is None and len(shards) < 2 * workers else shard.rows for shard in shards
    ]
    batches = sum(length or 0 for length in lengths) // batch_rows
    known_rows = batch_rows * max(_BATCHES, batches // _MAX_PIECES)
    pieces: list[Piece] = []
    filled = 0  # of the part
    for index, (shard, length) in enumerate(zip(shards, lengths, strict=True), start.shard):
        first = start.row if index == start.shard else 0
        most = known_rows
        if length is not None and shard.rows is None:
            share = -(-length // (_PIECES_PER_WORKER * workers * batch_rows))
            most = max(known_rows, batch_rows * share)
        while length is not None:
            room = most if part_rows is None else min(most, part_rows - filled)
            if length - first <= room:
                break
            pieces.append(Piece(index, first, room))
            first += room
            filled = _filled(filled + room, part_rows)
        pieces.append(Piece(index, first, TO_END))
        filled = _filled(filled + (length or first) - first, part_rows)
    rows = None if None in lengths else sum(length or 0 for length in lengths) - start.row
    return PiecePlan(pieces, rows)


def _filled(rows: int, part_rows: int | None) -> int:
    return 0 if part_rows is None else rows % part_rows
