"""The outcome of a joint call, divided among its callers."""

import copy
import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, TypeAlias, TypeVar

import numpy as np

from convvae.errors import ConvvaeError, InvalidInput, MessageTooLarge, ServerFault, VersionGone
from convvae.results import Answer

__all__ = ["Outcome", "Verdict", "detached", "divide", "judge"]

A = TypeVar("A", bound=Answer)

# The rows of one caller may be the reason of these, or the size of the joint call. All others would meet each
# caller alone as well.
_DUE_TO_ROWS = (InvalidInput, MessageTooLarge, ServerFault, VersionGone)
_ROW = re.compile(r"\[(\d+)\]")


class Verdict(Enum):
    """The next step of a caller to whom a joint call gives no answer.

    Attributes:
        ALONE: Its rows are sent alone, because they may be the reason.
        AGAIN: Its rows go into the next joint call, because they are not the reason.
    """

    ALONE = auto()
    AGAIN = auto()


Outcome: TypeAlias = Answer | ConvvaeError | Verdict


def divide(answer: A, counts: Sequence[int]) -> list[A]:
    """Divide a joint answer into answers of `counts` rows. Each owns its arrays."""
    answers, start = [], 0
    for count in counts:
        rows = slice(start, start + count)
        fields: dict[str, Any] = {
            name: value[rows].copy() if isinstance(value, np.ndarray) else value
            for name, value in vars(answer).items()
        }
        answers.append(type(answer)(**fields))
        start += count
    return answers


def judge(error: ConvvaeError, counts: Sequence[int]) -> list[Outcome]:
    """Return the consequence of a joint call's error for each of its callers, who have `counts` rows.

    If rows may be the reason, the callers whose rows the error names send them alone. If it names none, all
    callers do. Any other error, and the error of a single caller, is the error of each.
    """
    if len(counts) == 1 or not isinstance(error, _DUE_TO_ROWS):
        return [detached(error) for _ in counts]
    named = _named_rows(error)
    outcomes: list[Outcome] = []
    start = 0
    for count in counts:
        blamed = any(start <= row < start + count for row in named)
        outcomes.append(Verdict.ALONE if blamed else Verdict.AGAIN)
        start += count
    return outcomes if Verdict.ALONE in outcomes else [Verdict.ALONE] * len(counts)


def _named_rows(error: ConvvaeError) -> list[int]:
    """Return the rows that the error names, or none if it also names something else."""
    violations = error.violations if isinstance(error, InvalidInput) else ()
    found = [_ROW.search(violation.field) for violation in violations]
    return [int(row[1]) for row in found if row is not None] if all(found) else []


def detached(error: ConvvaeError) -> ConvvaeError:
    """Return a copy without traceback and cause. Their frames keep the arrays of all callers alive."""
    return copy.copy(error)
