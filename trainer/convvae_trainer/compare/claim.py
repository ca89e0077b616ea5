"""A claim, the cases that decide on it, and the verdict."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from convvae_trainer.compare.spread import Spread, compared, compared_with

__all__ = ["ONE_SEED", "Case", "Claim", "difference_case", "limit_case", "three_digits", "with_seeds"]

ONE_SEED = "one seed: cannot be said beyond chance"
WITHIN_SPREAD = "within the spread of seeds"
# With two seeds each, the means have to differ by 4 to 9 times the larger deviation.
TWO_SEEDS = "two seeds tell only very large differences"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One comparison that a claim is judged by.

    Attributes:
        holds: Whether it supports the claim. None: it cannot be said.
        words: The numbers, and why nothing can be said.
        is_one_seed: Whether one run alone decided.
        is_comparable: Whether the systems are such that the claim can be judged on them at all.
    """

    holds: bool | None
    words: str
    is_one_seed: bool = False
    is_comparable: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim, the criterion that decides on it, and the cases; `missing` says why there are no cases."""

    text: str
    criterion: str
    cases: tuple[Case, ...]
    missing: str

    @property
    def verdict(self) -> str:
        """The verdict as a phrase.

        Cases that cannot be compared have no vote. Cases that one seed decided have one only where no other
        case has been decided, and then the verdict says so.
        """
        cases = [case for case in self.cases if case.is_comparable]
        strong = [case for case in cases if not case.is_one_seed]
        if any(case.holds is not None for case in strong):
            return _phrase(strong, "here")
        if any(case.holds is not None for case in cases):
            return _phrase([case for case in cases if case.is_one_seed], "for one seed")
        return "cannot be said"

    def to_json_object(self) -> dict[str, Any]:
        """Return the claim with its verdict as JSON types."""
        return {**asdict(self), "cases": [asdict(case) for case in self.cases], "verdict": self.verdict}


def _phrase(cases: Sequence[Case], where: str) -> str:
    holding = sum(case.holds is True for case in cases)
    if holding == len(cases):
        return f"holds {where}"
    failing = sum(case.holds is False for case in cases)
    if failing == len(cases):
        return f"does not hold {where}"
    if not holding:
        return f"does not hold in {failing} of {len(cases)} cases here"
    return f"holds in {holding} of {len(cases)} cases here"


def difference_case(words: str, a: Spread, b: Spread, *, wanted: int) -> Case:
    """Return the case of a difference between two systems: its sign beyond the spread has to be `wanted`."""
    side = compared(a, b)
    if side is None:
        return Case(holds=None, words=f"{words}; {ONE_SEED}")
    if side == 0:
        return Case(holds=None, words=f"{words}; {_within(a, b)}")
    return Case(holds=side == wanted, words=words)


def limit_case(words: str, value: Spread, limit: float, *, wanted: int) -> Case:
    """Return the case of a figure on one side of a limit; one seed decides for its own run alone."""
    if value.count == 1:
        return Case(holds=(value.mean - limit) * wanted > 0, words=words, is_one_seed=True)
    side = compared_with(value, limit)
    if side == 0 and value.deviation:
        return Case(holds=None, words=f"{words}; {_within(value)}")
    return Case(holds=side == wanted, words=words)


def _within(*figures: Spread) -> str:
    """Return that nothing can be said beyond the spread, and whether more seeds might change that."""
    few = any(figure.count == 2 for figure in figures)
    return f"{WITHIN_SPREAD}: {TWO_SEEDS}" if few else WITHIN_SPREAD


def with_seeds(figure: Spread, form: str) -> str:
    """Return mean, deviation and number of seeds, such as "0.31 ± 0.02 (3 seeds)"."""
    return figure.text(form) + ("" if figure.count == 1 else f" ({figure.count} seeds)")


def three_digits(value: float) -> str:
    """Return the number with at least three digits; large numbers have no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
