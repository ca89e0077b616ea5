"""A figure over the seeds of a system, and whether differences go beyond the spread of seeds."""

import math
import statistics
from dataclasses import dataclass

from scipy.special import stdtrit

__all__ = ["CONFIDENCE", "RULE", "Spread", "compared", "compared_with"]

CONFIDENCE = 0.95
RULE = "Welch's t test over the seeds, two-sided, at 5 %"


@dataclass(frozen=True, slots=True)
class Spread:
    """The values of a figure, one for each seed; there is at least one."""

    values: tuple[float, ...]

    @property
    def count(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over the seeds (divisor n - 1); None for one seed."""
        return statistics.stdev(self.values) if self.count > 1 else None

    @property
    def squared_error(self) -> float:
        """The squared standard error of the mean; there are at least two seeds."""
        return statistics.variance(self.values) / self.count

    def text(self, form: str) -> str:
        """Return for example "0.31 ± 0.02": mean and deviation; for one seed the value alone."""
        deviation = self.deviation
        return f"{self.mean:{form}}" + ("" if deviation is None else f" ± {deviation:{form}}")


def compared(a: Spread, b: Spread) -> int | None:
    """Compare two means by Welch's t test (Welch 1947, degrees of freedom after Satterthwaite).

    Returns:
        -1 or 1 if the mean of `a` is lower or higher beyond the spread of seeds, 0 if the difference lies
        within it, and None if either has one seed: then the spread is not known.
    """
    if a.count < 2 or b.count < 2:
        return None
    errors = (a.squared_error, b.squared_error)
    freedom = 1.0
    if sum(errors) > 0:
        parts = errors[0] ** 2 / (a.count - 1) + errors[1] ** 2 / (b.count - 1)
        freedom = sum(errors) ** 2 / parts if parts > 0 else min(a.count, b.count) - 1.0
    return _side(a.mean - b.mean, math.sqrt(sum(errors)), freedom)


def compared_with(a: Spread, limit: float) -> int | None:
    """Compare a mean with a fixed limit by Student's t test; returns as `compared`."""
    if a.count < 2:
        return None
    return _side(a.mean - limit, math.sqrt(a.squared_error), a.count - 1.0)


def _side(difference: float, error: float, freedom: float) -> int:
    reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    return 0 if abs(difference) <= reach else int(math.copysign(1, difference))
