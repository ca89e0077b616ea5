"""The pieces of a source that workers on Ray encode."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae_service.images import Source
from convvae_service.pipeline.distributed.pieces import TO_END, Piece, plan_pieces
from convvae_service.pipeline.journal import Position

START = Position(0, 0)


@dataclass
class Length:
    """A shard that knows its length, or counts it, or does neither."""

    rows: int | None
    counted: int | None = None

    def count(self) -> int | None:
        return self.rows if self.rows is not None else self.counted


def source_of(*shards: Length) -> Source:
    given: Any = shards
    return Source(name="numbers", shards=given)


@given(
    lengths=st.lists(st.integers(0, 500), min_size=1, max_size=4),
    part_rows=st.one_of(st.none(), st.integers(1, 200)),
    batch_rows=st.integers(1, 8),
    data=st.data(),
)
def test_pieces_have_every_row_once(
    lengths: list[int], part_rows: int | None, batch_rows: int, data: st.DataObject
) -> None:
    """They are in order from the start on, and no piece has rows of two parts."""
    shard = data.draw(st.integers(0, len(lengths) - 1))
    start = Position(shard, data.draw(st.integers(0, lengths[shard])))
    plan = plan_pieces(
        source_of(*map(Length, lengths)), start, batch_rows=batch_rows, part_rows=part_rows, workers=2
    )
    expected = [(index, row) for index in range(shard, len(lengths)) for row in range(lengths[index])]
    expected = expected[start.row :]
    found: list[tuple[int, int]] = []
    for piece in plan.pieces:
        end = lengths[piece.shard] if piece.rows == TO_END else piece.first + piece.rows
        if part_rows is not None and end > piece.first:
            assert len(found) // part_rows == (len(found) + end - piece.first - 1) // part_rows
        found += [(piece.shard, row) for row in range(piece.first, end)]
    assert found == expected
    assert plan.rows == len(expected)
    ends = [piece.shard for piece in plan.pieces if piece.rows == TO_END]
    assert ends == list(range(shard, len(lengths)))


def test_a_shard_of_unknown_length_is_one_piece() -> None:
    """The number of rows is unknown then."""
    plan = plan_pieces(source_of(Length(None), Length(3)), START, batch_rows=2, part_rows=None, workers=8)
    assert plan == ([Piece(0, 0, TO_END), Piece(1, 0, TO_END)], None)


@pytest.mark.parametrize(("shards", "pieces"), [(1, 8), (4, 4)])
def test_few_archives_are_divided_among_the_workers(shards: int, pieces: int) -> None:
    """An archive is counted and divided only if there are fewer than two for each worker."""
    archives = [Length(None, counted=64_000) for _ in range(shards)]
    plan = plan_pieces(source_of(*archives), START, batch_rows=1, part_rows=None, workers=2)
    assert len(plan.pieces) == pieces


def test_a_huge_source_has_a_bounded_number_of_pieces() -> None:
    """A billion images are no more work for Ray than ten million."""
    plan = plan_pieces(source_of(Length(1_000_000_000)), START, batch_rows=128, part_rows=None, workers=100)
    assert 10_000 < len(plan.pieces) < 21_000
