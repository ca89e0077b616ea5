"""The division of a batch among the calls that wait for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae_service.batching.sharing import share


@pytest.mark.parametrize(
    ("rows_left", "space", "counts"),
    [
        ([5], 4, [4]),
        ([2], 4, [2]),
        ([4, 4, 4], 4, [4, 0, 0]),
        ([8, 2, 1], 4, [1, 2, 1]),
        ([100, 1], 64, [63, 1]),
        ([100, *[1] * 100], 16, [4, *[1] * 12, *[0] * 88]),
        ([9, 9], 1, [1, 0]),
    ],
)
def test_the_oldest_has_its_share_and_the_shortest_go_first(
    rows_left: list[int], space: int, counts: list[int]
) -> None:
    """The oldest call gets a quarter at least; the calls with the fewest rows left get the rest."""
    assert share(rows_left, space) == counts


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 100))
def test_a_batch_is_full_or_takes_all(rows_left: list[int], space: int) -> None:
    """No call gets more than it has, no room is wasted, and the oldest call always gets a row."""
    counts = share(rows_left, space)
    assert all(0 <= count <= left for count, left in zip(counts, rows_left, strict=True))
    assert sum(counts) == min(space, sum(rows_left))
    assert counts[0] >= 1
