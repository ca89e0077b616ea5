"""Ctrl-C while gRPC holds a lock."""

import _thread
import sys
import threading
from types import FrameType
from typing import Any

import numpy as np
import pytest

from convvae import Client
from support.spoilt_servicer import Servicer

END_OF_WITH = threading.Condition.__exit__.__code__
IMAGES = np.zeros((100, 4, 3, 1), np.uint8)


def in_finaliser(frame: FrameType | None) -> bool:
    """Return whether a frame runs inside a `__del__`."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def interrupted_at(client: Client, images: np.ndarray[Any, np.dtype[np.uint8]], moment: int) -> bool:
    """Encode, with an interrupt as a condition's lock is about to be given back for the `moment`th time."""
    passed = 0

    def on_call(frame: FrameType, event: str, _: Any) -> None:
        nonlocal passed
        # Python swallows an error of a finaliser, which the collector may run at any time.
        if frame.f_code is not END_OF_WITH or in_finaliser(frame):
            return
        passed += 1
        if passed == moment:
            sys.settrace(None)
            raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        client.encode(images)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.timeout(60)
@pytest.mark.parametrize("count", [1, 100])
def test_a_client_lives_on_after_an_interrupt_at_any_lock(
    target: str, servicer: Servicer, count: int
) -> None:
    """Whichever lock the interrupt leaves held, the next call is answered and the client closes."""
    interrupts = 0
    for moment in range(1, 9):
        with Client(target, timeout_s=10) as client:
            client.model()
            interrupts += interrupted_at(client, IMAGES[:count], moment)
            assert client.encode(IMAGES[:7]).mean.shape == (7, 2)
    assert interrupts >= 3
    assert servicer.count("Encode") > 0


@pytest.mark.usefixtures("interruptible")
def test_other_threads_are_answered_through_an_interrupt(target: str, servicer: Servicer) -> None:
    """A call of another thread continues while the call of the main thread is interrupted."""
    servicer.delay_s = 1.0
    with Client(target) as client:
        client.model()
        answers: list[Any] = []
        other = threading.Thread(target=lambda: answers.append(client.encode(IMAGES[:2]).mean))
        other.start()
        threading.Timer(0.3, _thread.interrupt_main).start()
        with pytest.raises(KeyboardInterrupt):
            client.encode(IMAGES)
        other.join(20)
    assert [mean.shape for mean in answers] == [(2, 2)]
