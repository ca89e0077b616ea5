"""Joint calls of threads when a signal interrupts one of them, at any place."""

import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from convvae import errors
from convvae.coalescing import gathering, outcome, small_call, threads
from convvae.coalescing.small_call import SmallCall
from convvae.transport.scheduler import TimeLimit
from support.file_server import encode_files
from support.held_server import NAME, Caller, Desk, ended, waiting
from support.waiting import wait_until

MODULES = {module.__file__ for module in (gathering, outcome, small_call, threads, weakref)}


def call_until(desk: Desk, small: SmallCall, moment: int, happen: Callable[[], None]) -> bool:
    """Call, and let something happen at the `moment`th place where a signal may come.

    Python looks for signals when a function begins, and after each call of a function in C. Return whether
    there are so many places.
    """
    passed = 0

    def on_event(frame: FrameType, event: str, _: Any) -> None:
        nonlocal passed
        # Python swallows what is raised in the callback of a weak reference.
        in_callback = frame.f_code.co_filename == weakref.__file__ and frame.f_code.co_name == "remove"
        if frame.f_code.co_filename in MODULES and event in ("call", "c_return") and not in_callback:
            passed += 1
            if passed == moment:
                sys.setprofile(None)
                happen()

    sys.setprofile(on_event)
    try:
        desk.coalescer.call(small, NAME, TimeLimit(20.0))
    except (KeyboardInterrupt, errors.Cancelled, errors.ClientClosed):
        return True
    finally:
        sys.setprofile(None)
    return passed >= moment


def interrupt() -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


@pytest.mark.timeout(120)
@pytest.mark.parametrize("leads", [True, False])
def test_an_interrupt_at_any_place_harms_nobody(leads: bool) -> None:
    """Wherever Ctrl-C ends a caller, those who wait with it are answered soon, and nothing is left."""
    moment, came = 0, True
    while came:
        moment += 1
        desk = Desk()
        first = Caller(desk, 1)
        desk.wait_for(1)
        others = waiting(desk, (2,), (3,), timeout_s=10.0 if leads else 30.0)
        threading.Timer(0.02, desk.release).start()
        came = call_until(desk, encode_files(4), moment, interrupt)
        assert ended([first, *others]) == [[1], [2], [3]]
        # Nobody had to wait until the joint call before it was overdue.
        assert max(caller.seconds for caller in others) < 0.9
        after = Caller(desk, 5)
        assert ended([after]) == [[5]]
        assert after.seconds < 0.9
        wait_until(lambda gatherings=desk.coalescer._gatherings: not gatherings)  # type: ignore[misc]
    assert moment > 20


@pytest.mark.timeout(120)
def test_a_signal_handler_may_close_at_any_place() -> None:
    """If a handler closes the client while its own thread calls, every call ends, and none hangs."""
    moment, came = 0, True
    while came:
        moment += 1
        desk = Desk()
        first = Caller(desk, 1)
        desk.wait_for(1)
        others = waiting(desk, (2,), (3,))
        threading.Timer(0.02, desk.release).start()
        came = call_until(desk, encode_files(4), moment, desk.coalescer.close)
        assert ended([first]) == [[1]]
        for caller, end in zip(others, ended(others), strict=True):
            assert end == [*map(float, caller.files)] or isinstance(end, errors.Cancelled)
    assert moment > 20
