"""Waiting for a state that nothing announces."""

import time
from collections.abc import Callable

TIMEOUT_S = 20.0


def wait_until(condition: Callable[[], bool], *, within_s: float = TIMEOUT_S) -> None:
    """Return when a condition holds; fail after this time, 20 seconds by default."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
