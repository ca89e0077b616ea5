"""Errors that nobody catches."""

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from convvae_service.observability.uncaught import log_uncaught, place_of

SECRET = "Bearer s3cr3t"


@pytest.fixture(autouse=True)
def hooks() -> Iterator[None]:
    """The hooks of the server, until the test ends."""
    before = threading.excepthook, sys.unraisablehook
    log_uncaught()
    yield
    threading.excepthook, sys.unraisablehook = before


def fail() -> None:
    raise ValueError(SECRET)


def only_line(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is None
    found: dict[str, str] = record.__dict__["facts"]
    assert SECRET not in record.getMessage() + str(found)
    return found


def test_a_thread_that_fails_is_a_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the thread, the kind and the place of the error, and not its text."""
    thread = threading.Thread(target=fail, name="worker 3")
    thread.start()
    thread.join()
    found = only_line(caplog)
    assert found["thread"] == "worker 3"
    assert found["error"] == "ValueError"
    assert found["at"].endswith(" fail")
    assert capsys.readouterr().err == ""


def test_an_error_that_cannot_be_raised_is_a_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in `__del__`, which no code of ours calls."""

    class Held:
        def __del__(self) -> None:
            fail()

    del [Held()][0]
    found = only_line(caplog)
    assert found["error"] == "ValueError"
    assert found["at"].endswith(" fail")
    assert capsys.readouterr().err == ""


def test_a_thread_that_ends_itself_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """`sys.exit` in a thread is silent, as in Python."""
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    assert caplog.records == []


def test_an_error_that_was_never_raised_has_no_place() -> None:
    """It has no traceback."""
    assert place_of(ValueError("x")) == ""
    assert place_of(None) == ""
