"""The distance of pairs, relative to how crowded it is around them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from convvae_service.pipeline.search.crowding import crowding_ratios
from convvae_service.pipeline.search.near_pairs import NearPairs, near_pairs


def pairs_of(vectors_NZ: NDArray[np.float32], *pairs: tuple[int, int]) -> NearPairs:
    """Return these pairs of rows with their distances."""
    first, second = np.array(pairs, np.int64).T
    differences = vectors_NZ[first].astype(np.float64) - vectors_NZ[second]
    return NearPairs(first, second, np.sqrt((differences**2).sum(axis=1)))


def test_the_ratio_is_that_to_the_tenth_neighbours() -> None:
    """The distances of both rows to their tenth neighbours count alike, by their geometric mean."""
    vectors = np.arange(30, dtype=np.float32)[:, None] ** 2
    (ratio,) = crowding_ratios(vectors, pairs_of(vectors, (0, 20)), floor=0.0)
    tenth = [np.sort(np.abs(vectors[:, 0] - vectors[row, 0]))[10] for row in (0, 20)]
    assert ratio == pytest.approx(400 / np.sqrt(float(tenth[0]) * float(tenth[1])))


def test_a_copy_is_told_from_the_pairs_of_a_crowd() -> None:
    """In a crowd many pairs are as near as a copy elsewhere; their ratios are far from small."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(600, 16)).astype(np.float32)
    vectors[:300] *= 0.05
    vectors[-1] = vectors[400] + np.float32(0.05)
    copy = float(np.linalg.norm(vectors[-1] - vectors[400]))
    pairs = near_pairs(vectors, copy * 1.001, max_pairs=10**6)
    assert len(pairs.first) > 50
    ratios = crowding_ratios(vectors, pairs, floor=copy / 2)
    found = [(int(pairs.first[row]), int(pairs.second[row])) for row in np.flatnonzero(ratios <= 0.5)]
    assert found == [(400, 599)]


def test_many_copies_of_an_image_are_no_crowd() -> None:
    """The floor keeps pairs of 40 copies, though their tenth neighbours are copies too."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(200, 8)).astype(np.float32)
    vectors[:40] = vectors[0] + 0.001 * random.normal(size=(40, 8)).astype(np.float32)
    pairs = near_pairs(vectors, 0.1, max_pairs=10**6)
    assert len(pairs.first) == 40 * 39 // 2
    assert (crowding_ratios(vectors, pairs, floor=0.05) <= 0.5).all()
    assert (crowding_ratios(vectors, pairs, floor=0.0) > 0.5).any()


def test_equal_rows_have_ratio_0_and_no_pairs_have_no_ratios() -> None:
    """Neither divides by 0."""
    vectors = np.zeros((12, 3), np.float32)
    assert crowding_ratios(vectors, pairs_of(vectors, (0, 1), (2, 11)), floor=0.0).tolist() == [0.0, 0.0]
    none = near_pairs(np.eye(3, dtype=np.float32), 0.1, max_pairs=10)
    assert crowding_ratios(np.eye(3, dtype=np.float32), none, floor=0.0).shape == (0,)


def test_ratios_beside_many_equal_rows_are_finite() -> None:
    """JSON has no infinity."""
    vectors = np.zeros((24, 3), np.float32)
    vectors[12:] = 1
    (ratio,) = crowding_ratios(vectors, pairs_of(vectors, (0, 23)), floor=0.0)
    assert 1e6 < ratio < np.inf
