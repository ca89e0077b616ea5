"""Pairs of near rows, and the suggested threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.search import near_pairs as module
from convvae_service.pipeline.search.near_pairs import near_pairs, suggested_threshold


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 150),
    latent=st.integers(1, 20),
    threshold=st.floats(0, 6, allow_subnormal=False),
    offset=st.sampled_from([0.0, 3.0, 1000.0]),
)
def test_the_pairs_are_those_of_all_distances(
    seed: int, rows: int, latent: int, threshold: float, offset: float
) -> None:
    """None is missing, none is double, and the nearest come first."""
    random = np.random.default_rng(seed)
    vectors = (offset + random.normal(size=(rows, latent))).astype(np.float32)
    vectors[random.integers(rows, size=rows // 4)] = vectors[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ROWS", 16)
        patch.setattr(module, "_BLOCK_OTHERS", 32)
        pairs = near_pairs(vectors, threshold, max_pairs=10**6)
    distances = np.sqrt(((vectors[:, None].astype(np.float64) - vectors[None]) ** 2).sum(axis=2))
    first, second = np.nonzero(np.triu(distances <= threshold, 1))
    found = sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert found == list(zip(first.tolist(), second.tolist(), strict=True))
    np.testing.assert_allclose(pairs.distances, distances[pairs.first, pairs.second], rtol=1e-9, atol=1e-12)
    assert (np.diff(pairs.distances) >= 0).all()


def test_too_many_pairs_are_refused_with_the_way_out() -> None:
    """They would fill the memory: the error names both options."""
    with pytest.raises(BadUse, match=r"more than 100 pairs .* a lower --threshold, or a higher --max-pairs"):
        near_pairs(np.zeros((50, 4), np.float32), 1.0, max_pairs=100)


@pytest.mark.parametrize("latent", [8, 32])
def test_the_suggested_threshold_finds_planted_duplicates(latent: int) -> None:
    """100 rows that differ a little from others are found, with few others."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(5000, latent)).astype(np.float32)
    vectors[-100:] = vectors[:100] + 0.01 * random.normal(size=(100, latent)).astype(np.float32)
    threshold = suggested_threshold(vectors)
    pairs = near_pairs(vectors, threshold, max_pairs=10**6)
    planted = {(row, row + 4900) for row in range(100)}
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert planted <= found
    assert len(found) < 300


def test_equal_rows_do_not_lower_the_threshold() -> None:
    """They are pairs at any threshold; the others decide."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(400, 8)).astype(np.float32)
    alone = suggested_threshold(vectors)
    assert suggested_threshold(np.repeat(vectors, 2, axis=0)) == pytest.approx(alone, rel=0.2)
    assert suggested_threshold(np.zeros((10, 3), np.float32)) == 0.0


@pytest.mark.parametrize("change", [0.002, 0.1])
def test_a_copy_of_every_row_does_not_lower_the_threshold(change: float) -> None:
    """The copies are found, though the nearest row of every row is its copy."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(1000, 16)).astype(np.float32)
    copies = vectors + change * random.normal(size=vectors.shape).astype(np.float32)
    both = np.concatenate((vectors, copies))
    threshold = suggested_threshold(both)
    assert threshold == pytest.approx(suggested_threshold(vectors), rel=0.2)
    pairs = near_pairs(both, threshold, max_pairs=10**6)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len({(row, row + 1000) for row in range(1000)} - found) <= 5


@pytest.mark.parametrize("latent", [1, 2, 4])
def test_few_dimensions_do_not_raise_the_threshold(latent: int) -> None:
    """There, near neighbours are common by chance: they are few among 5,000 rows without copies."""
    vectors = np.random.default_rng(1).normal(size=(5000, latent)).astype(np.float32)
    pairs = near_pairs(vectors, suggested_threshold(vectors), max_pairs=10**6)
    assert len(pairs.first) < 250


def test_two_rows_and_many_equal_ones_have_a_threshold() -> None:
    """Half of the only distance; and equal vectors alone have no other limit than 0."""
    assert suggested_threshold(np.array([[0.0, 0.0], [3.0, 4.0]], np.float32)) == pytest.approx(2.5)
    with pytest.raises(BadUse, match="more than 100 pairs of equal vectors: give a higher --max-pairs"):
        near_pairs(np.zeros((50, 4), np.float32), 0.0, max_pairs=100)


def test_one_row_far_from_all_others_changes_nothing() -> None:
    """Its large square costs the others no digits: their pairs are the same, and no more are looked at."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(3000, 16)).astype(np.float32)
    vectors[-20:] = vectors[:20] + np.float32(0.001)
    before = near_pairs(vectors, 0.5, max_pairs=10**6)
    assert len(before.first) >= 20
    vectors[1500] = 1e6
    looked_at: list[int] = []

    def counting(operands: str, *arrays: NDArray[np.float64]) -> NDArray[np.float64]:
        if operands == "pz,pz->p":
            looked_at.append(len(arrays[0]))
        found: NDArray[np.float64] = einsum(operands, *arrays)
        return found

    einsum = np.einsum
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "einsum", counting)
        after = near_pairs(vectors, 0.5, max_pairs=10**6)
    np.testing.assert_array_equal(after.first, before.first)
    np.testing.assert_array_equal(after.distances, before.distances)
    assert sum(looked_at) < 20 * len(before.first)
    assert suggested_threshold(vectors) == pytest.approx(suggested_threshold(vectors[:1500]), rel=0.2)
