"""Waiting for a state that nothing announces."""

import time
from collections.abc import Callable

TIMEOUT_S = 20.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds; fail after 20 seconds."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
