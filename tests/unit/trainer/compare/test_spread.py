"""Differences that go beyond the spread of seeds."""

import numpy as np
import pytest
from scipy import stats

from convvae_trainer.compare.spread import Spread, compared, compared_with


def test_means_are_compared_as_welchs_test_does() -> None:
    """Over many draws, the verdict is that of scipy's test at 5 %, and the side is that of the means."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(300):
        a = random.normal(0, 1, random.integers(2, 6))
        b = random.normal(random.choice([0, 2]), random.choice([0.2, 2]), random.integers(2, 6))
        side = compared(Spread(tuple(a)), Spread(tuple(b)))
        is_beyond = stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05
        assert side == (np.sign(a.mean() - b.mean()) if is_beyond else 0)
        found.append(side)
    assert {-1, 0} <= set(found)


def test_a_mean_is_compared_with_a_limit_as_students_test_does() -> None:
    """The side of a fixed limit is told where the one-sample test at 5 % tells it."""
    values = (0.80, 0.82, 0.84)
    for limit in (0.7, 0.78, 0.83, 0.9):
        is_beyond = stats.ttest_1samp(values, limit).pvalue < 0.05
        assert compared_with(Spread(values), limit) == (np.sign(0.82 - limit) if is_beyond else 0)


def test_one_seed_has_no_spread() -> None:
    """Nothing is said of a difference if either system has one seed, however large it is."""
    one, three = Spread((1.0,)), Spread((100.0, 101.0, 102.0))
    assert compared(one, three) is compared(three, one) is compared(one, one) is None
    assert compared_with(one, 0.0) is None
    assert one.deviation is None
    assert three.deviation == 1.0


def test_figures_without_any_spread_differ_if_they_are_not_equal() -> None:
    """Counts may be the same with every seed."""
    assert compared(Spread((4.0, 4.0)), Spread((5.0, 5.0))) == -1
    assert compared(Spread((4.0, 4.0)), Spread((4.0, 4.0))) == 0
    assert compared(Spread((4.0, 4.0)), Spread((5.0, 5.1))) == -1


def test_a_figure_is_shown_with_its_deviation() -> None:
    """One seed has a single number."""
    assert Spread((1.0, 2.0, 3.0)).text(".1f") == "2.0 ± 1.0"
    assert Spread((1.0,)).text(".1f") == "1.0"
    assert Spread((1.0, 2.0)).deviation == pytest.approx(0.7071, abs=1e-4)
