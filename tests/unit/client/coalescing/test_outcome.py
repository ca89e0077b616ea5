"""Joint outcomes, divided among their callers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae import errors
from convvae.coalescing.outcome import Verdict, detached, divide, judge
from convvae.errors import ConvvaeError, InvalidInput, Violation
from convvae.results import Encoded, Scored

COUNTS = st.lists(st.integers(1, 6), min_size=2, max_size=12)


@given(counts=COUNTS)
def test_divided_answers_are_the_callers_rows(counts: list[int]) -> None:
    """Every caller gets its own rows, the version that answered, and arrays of its own."""
    total = sum(counts)
    mean = np.arange(2.0 * total, dtype=np.float32).reshape(total, 2)
    answers = divide(Encoded(model="m", version=3, precision="fp32", mean=mean), counts)
    assert [len(answer.mean) for answer in answers] == counts
    assert np.array_equal(np.concatenate([answer.mean for answer in answers]), mean)
    for answer in answers:
        assert (answer.model, answer.version, answer.precision) == ("m", 3, "fp32")
        assert answer.log_variance is None
        assert answer.mean.flags.owndata
        assert answer.mean.flags.writeable


def test_all_fields_are_divided() -> None:
    """Every array of an answer is divided."""
    values = np.arange(3, dtype=np.float32)
    whole = Scored(model="m", version=1, precision="fp32", elbo=-values, distortion=values, rate=values * 2)
    first, second = divide(whole, [1, 2])
    assert (first.elbo.tolist(), first.distortion.tolist(), first.rate.tolist()) == ([0], [0], [0])
    assert (second.elbo.tolist(), second.distortion.tolist(), second.rate.tolist()) == (
        [-1, -2], [1, 2], [2, 4],
    )  # fmt: skip
    assert second.seed is None


@given(counts=COUNTS, data=st.data())
def test_only_callers_of_named_rows_go_alone(counts: list[int], data: st.DataObject) -> None:
    """The callers whose rows an error names send them alone; the others are joined again."""
    owners = [caller for caller, count in enumerate(counts) for _ in range(count)]
    bad = data.draw(st.sets(st.integers(0, len(owners) - 1), min_size=1))
    error = InvalidInput("bad", violations=[Violation(f"files[{row}]", "no image") for row in sorted(bad)])
    blamed = {owners[row] for row in bad}
    assert judge(error, counts) == [
        Verdict.ALONE if caller in blamed else Verdict.AGAIN for caller in range(len(counts))
    ]


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("no details"),
        InvalidInput("of the call", violations=[Violation("pixels.count", "too many")]),
        InvalidInput("mixed", violations=[Violation("files[1]", "bad"), Violation("model", "unknown")]),
        InvalidInput("row of nobody", violations=[Violation("files[99]", "bad")]),
        errors.MessageTooLarge("large"),
        errors.ServerFault("failed"),
        errors.BadReply("odd"),
        errors.VersionGone("replaced"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error}",
)
def test_an_error_of_unknown_rows_sends_everyone_alone(error: ConvvaeError) -> None:
    """If rows may be the reason but the error does not say which, every caller sends its own."""
    assert judge(error, [1, 2, 1]) == [Verdict.ALONE] * 3
    assert [type(outcome) for outcome in judge(error, [4])] == [type(error)]


@pytest.mark.parametrize(
    "kind",
    [
        errors.Unavailable, errors.Overloaded, errors.Aborted, errors.DeadlineExceeded, errors.AccessDenied,
        errors.NotFound, errors.NotPossible, errors.Cancelled, errors.Unimplemented, errors.ClientClosed,
    ],
)  # fmt: skip
def test_an_error_of_the_server_is_everyones(kind: type[ConvvaeError]) -> None:
    """An error that is not due to rows is not tried again; each caller raises a copy of its own."""
    outcomes = judge(kind("on purpose", code="X", request_id="id-7", retry_delay_s=0.5), [1, 2, 1])
    assert len({id(outcome) for outcome in outcomes}) == 3
    for outcome in outcomes:
        assert isinstance(outcome, kind)
        assert (outcome.message, outcome.code, outcome.request_id) == ("on purpose", "X", "id-7")
        assert outcome.retry_delay_s == 0.5


def test_a_detached_error_has_no_frames() -> None:
    """A copy keeps what the error says, and neither traceback nor cause."""
    try:
        try:
            raise ValueError
        except ValueError as cause:
            raise InvalidInput("bad", violations=[Violation("files[1]", "no image")]) from cause
    except InvalidInput as error:
        copied = detached(error)
    assert isinstance(copied, InvalidInput)
    assert (copied.message, copied.violations) == ("bad", (Violation("files[1]", "no image"),))
    assert (copied.__traceback__, copied.__cause__, copied.__context__) == (None, None, None)
