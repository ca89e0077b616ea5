"""Joint calls of threads, over a server in memory that answers when the test says so."""

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from convvae import errors
from convvae.coalescing.small_call import Joinable
from convvae.model_name import ModelName
from convvae.results import Encoded
from convvae.transport.scheduler import TimeLimit
from support.file_server import BAD, encode_files
from support.held_server import NAME, Caller, Desk, ended, waiting
from support.waiting import wait_until


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A server that answers nothing yet."""
    desk = Desk()
    yield desk
    desk.release()


def test_calls_that_wait_leave_together(desk: Desk) -> None:
    """The first call is sent at once, and those that arrive during it leave in one request."""
    first = Caller(desk, 1)
    desk.wait_for(1)
    others = waiting(desk, (2, 3), (4,), (5, 6, 7))
    assert desk.requests == [[1]]
    desk.release(1)
    desk.wait_for(2)
    desk.release(1)
    assert ended([first, *others]) == [[1], [2, 3], [4], [5, 6, 7]]
    assert sorted(desk.requests[1]) == [2, 3, 4, 5, 6, 7]


def test_nothing_is_left_of_ended_calls(desk: Desk) -> None:
    """After its last call, a coalescer holds neither calls nor rows."""
    desk.release()
    ended([Caller(desk, value) for value in range(50)])
    wait_until(lambda: not desk.coalescer._gatherings)


def test_a_bad_file_fails_its_own_caller(desk: Desk) -> None:
    """Only the caller of a bad file sends again alone, and reads its own index; the others are joined."""
    first = Caller(desk, 1)
    desk.wait_for(1)
    others = waiting(desk, (2, 3), (4, BAD), (5,))
    desk.release()
    good, bad, last = ended(others)
    assert (good, last, ended([first])) == ([2, 3], [5], [[1]])
    assert isinstance(bad, errors.InvalidInput)
    assert [violation.field for violation in bad.violations] == ["files[1]"]
    assert bad.message == "files[1]: no image"
    joint, *later = desk.requests[1:]
    assert sorted(joint) == [2, 3, 4, 5, BAD]
    assert sorted(map(sorted, later)) == [[2, 3, 5], [4, BAD]]


@pytest.mark.parametrize("kind", [errors.Unavailable, errors.Overloaded, errors.NotFound])
def test_an_error_of_the_server_is_not_multiplied(desk: Desk, kind: type[errors.ConvvaeError]) -> None:
    """A joint call that the server refuses is not sent again, and every caller gets its error."""
    first = Caller(desk, 1)
    desk.wait_for(1)
    others = waiting(desk, (2,), (3,), (4,))

    def spoil(files: list[int]) -> None:
        if len(files) > 1:
            raise kind("on purpose", request_id="id-7")

    desk.spoil = spoil
    desk.release()
    outcomes = ended(others)
    assert [(type(error), error.request_id) for error in outcomes] == [(kind, "id-7")] * 3
    assert len({id(error) for error in outcomes}) == 3
    assert (ended([first]), len(desk.requests)) == ([[1]], 2)


def test_an_error_of_unknown_rows_is_settled_alone(desk: Desk) -> None:
    """If a joint call fails for an unknown reason, each caller sends its rows alone."""
    first = Caller(desk, 1)
    desk.wait_for(1)
    others = waiting(desk, (2,), (3,), (4,))

    def spoil(files: list[int]) -> None:
        if 3 in files:
            raise MemoryError

    desk.spoil = spoil
    desk.release()
    two, three, four = ended(others)
    assert (two, type(three), four, ended([first])) == ([2], MemoryError, [4], [[1]])


def test_each_caller_keeps_its_own_time(desk: Desk) -> None:
    """A caller that gives up leaves in time; the others stay in the joint call and get their answer."""
    first = Caller(desk, 1)
    desk.wait_for(1)
    (patient, hasty) = (*waiting(desk, (2,)), *waiting(desk, (3,), timeout_s=0.3))
    desk.release(1)
    desk.wait_for(2)
    (given_up,) = ended([hasty])
    assert isinstance(given_up, errors.DeadlineExceeded)
    assert "not answered within 0.3 s" in str(given_up)
    assert 0.2 < hasty.seconds < 2
    assert patient.is_alive()
    desk.release(1)
    assert ended([first, patient]) == [[1], [2]]
    assert len(desk.requests) == 2


def test_a_caller_that_waits_gives_up_in_time(desk: Desk) -> None:
    """A caller whose time ends before its request was sent leaves nothing behind."""
    first = Caller(desk, 1)
    desk.wait_for(1)
    late = Caller(desk, 2, timeout_s=0.2)
    (outcome,) = ended([late])
    assert isinstance(outcome, errors.DeadlineExceeded)
    assert late.seconds < 2
    desk.release()
    assert ended([first]) == [[1]]
    outcome = late.outcome = None
    wait_until(lambda: not desk.coalescer._gatherings)


def test_time_of_the_leader_cuts_no_other_short(desk: Desk) -> None:
    """A caller with more time than the leader goes on when the leader's time has passed."""
    first = Caller(desk, 1, timeout_s=0.6)
    desk.wait_for(1)
    chosen = Desk.send

    def slow(operation: Joinable, name: ModelName, limit: TimeLimit) -> Encoded:
        return chosen(desk, operation, name, limit)

    desk.coalescer._send = slow
    (patient,) = waiting(desk, (2,), timeout_s=20.0)
    (outcome,) = ended([first])
    assert isinstance(outcome, errors.DeadlineExceeded)
    desk.wait_for(2)
    desk.release()
    assert ended([patient]) == [[2]]


def test_a_request_that_hangs_does_not_hold_the_others(desk: Desk) -> None:
    """After a tenth of its time, a call is sent beside the request in flight."""
    stuck = Caller(desk, 1)
    desk.wait_for(1)
    others = waiting(desk, (2,), (3,), timeout_s=5.0)
    desk.wait_for(2)
    assert sorted(desk.requests[1]) == [2, 3]
    assert stuck.is_alive()
    desk.release()
    assert ended([stuck, *others]) == [[1], [2], [3]]


def test_a_call_that_waits_again_does_so_for_a_tenth_of_its_time(desk: Desk) -> None:
    """A call that the bad file of another puts back does not wait for a request that hangs either."""
    hang = threading.Event()

    def spoil(files: list[int]) -> None:
        if files == [1]:
            hang.wait(20)

    desk.spoil = spoil
    desk.release()
    stuck = Caller(desk, 1)
    desk.wait_for(1)
    good, bad = ended(waiting(desk, (2,), (BAD,), timeout_s=5.0))
    assert good == [2]
    assert isinstance(bad, errors.InvalidInput)
    assert list(map(sorted, desk.requests)) == [[1], [2, BAD], [BAD], [2]]
    assert stuck.is_alive()
    hang.set()
    assert ended([stuck]) == [[1]]


def test_close_ends_the_calls_that_wait(desk: Desk) -> None:
    """Calls that wait end with Cancelled; later ones are refused."""
    first = Caller(desk, 1)
    desk.wait_for(1)
    others = waiting(desk, (2,), (3,))
    desk.coalescer.close()
    assert [type(error) for error in ended(others)] == [errors.Cancelled] * 2
    (refused,) = ended([Caller(desk, 4)])
    assert isinstance(refused, errors.ClientClosed)
    desk.release()
    assert ended([first]) == [[1]]


def test_errors_keep_no_rows_alive(desk: Desk) -> None:
    """A caller that keeps its error keeps neither the rows of others nor, once it is dropped, its own."""
    rows: list[weakref.ref[Any]] = []
    caught: list[BaseException] = []
    first = Caller(desk, 1)
    desk.wait_for(1)

    def call(value: int) -> None:
        small = encode_files(value)
        rows.append(weakref.ref(small.operation.images))  # type: ignore[union-attr]
        try:
            desk.coalescer.call(small, NAME, TimeLimit(20.0))
        except errors.Unavailable as error:
            if value == 2:
                caught.append(error)

    callers = [threading.Thread(target=call, args=(value,)) for value in (2, 3, 4)]
    for number, thread in enumerate(callers):
        thread.start()
        wait_until(lambda number=number: desk.in_gathering() == number + 1)  # type: ignore[misc]

    def spoil(files: list[int]) -> None:
        if len(files) > 1:
            raise errors.Unavailable("on purpose")

    desk.spoil = spoil
    gc.disable()
    try:
        desk.release()
        for thread in callers:
            thread.join(20)
        assert [row() is None for row in rows] == [False, True, True]
        caught.clear()
        assert rows[0]() is None
    finally:
        gc.enable()
    assert ended([first]) == [[1]]
