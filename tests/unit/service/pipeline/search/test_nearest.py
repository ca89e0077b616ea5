"""The exact nearest rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convvae_service.pipeline.search import nearest as module
from convvae_service.pipeline.search.nearest import nearest


def by_hand(
    queries_QZ: NDArray[np.float32], vectors_NZ: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return rows and distances from all distances in float64, sorted."""
    differences = queries_QZ[:, None].astype(np.float64) - vectors_NZ[None]
    distances = np.sqrt((differences**2).sum(axis=2))
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return order.astype(np.int64), np.take_along_axis(distances, order, axis=1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 300),
    queries=st.integers(1, 12),
    count=st.integers(1, 40),
    batch=st.integers(1, 300),
    latent=st.integers(1, 40),
)
def test_the_nearest_rows_are_those_of_a_sort(
    seed: int, rows: int, queries: int, count: int, batch: int, latent: int
) -> None:
    """Whatever the sizes of batches and blocks; rows at equal distances come in their order."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(rows, latent)).astype(np.float32)
    # Some rows are equal.
    vectors[random.integers(rows, size=rows // 3)] = vectors[0]
    asked = random.normal(size=(queries, latent)).astype(np.float32)
    asked[0] = vectors[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ROWS", 64)
        patch.setattr(module, "_BLOCK_QUERIES", 5)
        # More equal rows than this may push each other out.
        patch.setattr(module, "_MARGIN", 100)
        found = nearest(asked, [vectors[at : at + batch] for at in range(0, rows, batch)], count)
    expected_rows, expected_distances = by_hand(asked, vectors, count)
    np.testing.assert_array_equal(found.rows, expected_rows)
    np.testing.assert_allclose(found.distances, expected_distances, rtol=1e-12)


def test_large_values_do_not_hide_near_rows() -> None:
    """A row that differs by a thousandth is found among rows far from zero."""
    random = np.random.default_rng(0)
    vectors = (100 + random.normal(size=(20_000, 16))).astype(np.float32)
    queries = vectors[::4000] + np.float32(1e-3)
    found = nearest(queries, [vectors], 3)
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(0, 20_000, 4000))
    expected = np.sqrt(((queries.astype(np.float64) - vectors[::4000]) ** 2).sum(axis=1))
    np.testing.assert_allclose(found.distances[:, 0], expected, rtol=1e-9)


def test_fewer_rows_than_neighbours_are_all_returned() -> None:
    """The nearest first."""
    vectors = np.array([[3.0], [1.0], [2.0]], np.float32)
    found = nearest(np.zeros((1, 1), np.float32), [vectors], 10)
    assert found.rows.tolist() == [[1, 2, 0]]
    assert found.distances.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("offset", [10.0, 1000.0])
@pytest.mark.parametrize("count", [1, 40])
def test_vectors_far_from_the_origin_are_told_apart(offset: float, count: int) -> None:
    """Their differences are a hundred-thousandth of their lengths."""
    random = np.random.default_rng(0)
    vectors = (offset + 0.01 * random.normal(size=(9000, 16))).astype(np.float32)
    asked = vectors[:count]
    found = nearest(asked, np.array_split(vectors, 3), 11)
    rows, distances = by_hand(asked, vectors, 11)
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(count))
    np.testing.assert_allclose(found.distances, distances, rtol=1e-9)
    assert (found.rows == rows).mean() > 0.95  # the others are at equal distances


def test_one_query_far_from_all_others_costs_them_nothing() -> None:
    """The neighbours of the others are exact still."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(2000, 16)).astype(np.float32)
    vectors[7] = 1e6
    rows, distances = by_hand(vectors[:20], vectors, 11)
    found = nearest(vectors[:20], [vectors], 11)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-9)
