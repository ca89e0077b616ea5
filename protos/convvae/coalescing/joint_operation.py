"""Operations of several callers as one: which may be joined, how, and how its outcome is divided again."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, TypeAlias, TypeVar

import numpy as np

from convvae.calls.image_operations import Encode, Reconstruct, Score
from convvae.calls.images import PixelImages, join_images
from convvae.calls.latent_operations import Decode
from convvae.calls.operation import Operation
from convvae.errors import ConvvaeError, InvalidInput, MessageTooLarge, ServerFault
from convvae.results import Answer

__all__ = [
    "MAX_BYTES",
    "MAX_ROWS",
    "Joinable",
    "Kind",
    "SmallCall",
    "Verdict",
    "detached",
    "divide",
    "join",
    "judge",
    "small_call",
]

A = TypeVar("A", bound=Answer)
Joinable: TypeAlias = Encode | Decode | Reconstruct | Score

# Above these a call gains nothing: its own rows already share the cost of a request.
MAX_ROWS = 16
MAX_BYTES = 1 << 18

# These may be the fault of the rows of one caller. All other errors would meet each caller alone as well.
_FAULTS_OF_ROWS = (InvalidInput, MessageTooLarge, ServerFault)
_ROW = re.compile(r"\[(\d+)\]")


class Verdict(Enum):
    """The next step of a caller after a joint call without an answer for it.

    Attributes:
        ALONE: It sends its rows alone, because they may be the reason.
        AGAIN: Its rows go into the next joint call, because they are not the reason.
    """

    ALONE = auto()
    AGAIN = auto()


@dataclass(frozen=True, slots=True)
class Kind:
    """What operations must share to be joined.

    Attributes:
        method: Name of the RPC.
        option: Whether the reply has `log_variance`, for `Encode`.
        row_shape: Shape of one row of the input array, or None for files.
    """

    method: str
    option: bool
    row_shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class SmallCall:
    """An operation that may be joined with others of its kind, and the bytes of its rows."""

    operation: Joinable
    kind: Kind
    num_bytes: int


def small_call(operation: Operation[Any]) -> SmallCall | None:
    """Return the operation with its kind if it may be joined, or None if it is always sent alone.

    Draws depend on their seed and on the index of their row: operations with draws are never joined. A file
    that cannot be read is not joined either, so that the caller's own call reports it.
    """
    match operation:
        case Encode() | Reconstruct() | Score(num_samples=0):
            images = operation.images
            shape = images.array.shape[1:] if isinstance(images, PixelImages) else None
            option = isinstance(operation, Encode) and operation.include_log_variance
            kind = Kind(operation.method, option, shape)
            try:
                num_bytes = images.num_bytes if images.rows <= MAX_ROWS else MAX_BYTES + 1
            except InvalidInput:
                return None
        case Decode():
            kind = Kind(operation.method, False, operation.latents.shape[1:])
            num_bytes = operation.latents.nbytes
        case _:
            return None
    if operation.rows > MAX_ROWS or num_bytes > MAX_BYTES:
        return None
    return SmallCall(operation, kind, num_bytes)


def join(operations: Sequence[Joinable]) -> Joinable:
    """Return one operation on the rows of all `operations`, which are of one kind, in their order."""
    first = operations[0]
    if isinstance(first, Decode):
        return Decode(np.concatenate([each.latents for each in operations if isinstance(each, Decode)]))
    images = join_images([each.images for each in operations if not isinstance(each, Decode)])
    return replace(first, images=images)


def divide(answer: A, counts: Sequence[int]) -> list[A]:
    """Divide a joint answer into answers of `counts` rows. Each owns its arrays."""
    answers, start = [], 0
    for count in counts:
        rows = slice(start, start + count)
        values: dict[str, Any] = {
            name: value[rows].copy() if isinstance(value, np.ndarray) else value
            for name, value in vars(answer).items()
        }
        answers.append(type(answer)(**values))
        start += count
    return answers


def judge(error: ConvvaeError, counts: Sequence[int]) -> list[ConvvaeError | Verdict]:
    """Return the consequence of a joint call's error for each of its callers, who have `counts` rows.

    If rows may be the reason, the callers whose rows the error names send them alone. If it names none, all
    callers do. Any other error, and the error of a single caller, is the error of each.
    """
    if len(counts) == 1 or not isinstance(error, _FAULTS_OF_ROWS):
        return [detached(error) for _ in counts]
    named = _named_rows(error)
    verdicts: list[ConvvaeError | Verdict] = []
    start = 0
    for count in counts:
        blamed = any(start <= row < start + count for row in named)
        verdicts.append(Verdict.ALONE if blamed else Verdict.AGAIN)
        start += count
    return verdicts if Verdict.ALONE in verdicts else [Verdict.ALONE for _ in counts]


def _named_rows(error: ConvvaeError) -> list[int]:
    """Return the rows that the error names, or none if it also names something else."""
    found = [_ROW.search(violation.field) for violation in getattr(error, "violations", ())]
    return [int(row[1]) for row in found if row is not None] if all(found) else []


def detached(error: ConvvaeError) -> ConvvaeError:
    """Return a copy without traceback and cause, whose frames would keep the arrays of all callers alive."""
    return copy.copy(error)
