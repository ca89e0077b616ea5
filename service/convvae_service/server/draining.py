"""The waits of a drain: until no call arrives, and until no call runs and no caller reads its answer."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable

from convvae_service.calls.runner import CallRunner
from convvae_service.server.sent_bytes import acknowledged_bytes

__all__ = ["wait_for_calls", "wait_until_quiet"]

_INTERVAL_S = 0.02
# So many looks at callers that take no byte take half a second, or longer if the event loop is busy: answers
# that wait for it are sent first.
_MAX_STILL_LOOKS = 25


async def wait_until_quiet(runner: CallRunner, quiet_s: float, *, at_most_s: float) -> None:
    """Return when no call has arrived for `quiet_s` seconds, or after `at_most_s` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            # Each arrival extends the wait.
            while (left_s := runner.last_arrival_s + quiet_s - time.monotonic()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(left_s)


async def wait_for_calls(
    is_over: Callable[[], bool],
    runner: CallRunner,
    *,
    port: int,
    grace_s: float,
    max_sending_s: float = math.inf,
) -> None:
    """Return when the calls that run now have ended and their callers take no more bytes.

    Nothing tells a silent peer from a caller that reads slowly, except the bytes that it takes. A peer that
    takes none for half a second is not waited for.

    Args:
        is_over: Returns whether there is nothing to wait for: every answer is sent.
        runner: Knows the calls that run.
        port: The port of the server.
        grace_s: Maximum seconds for all of it.
        max_sending_s: Maximum seconds for the answers when the last call has ended.
    """
    calls = runner.calls
    ends_s = time.monotonic() + grace_s
    still_looks, acknowledged = 0, -1
    while not is_over() and time.monotonic() < ends_s and still_looks < _MAX_STILL_LOOKS:
        await asyncio.sleep(_INTERVAL_S)
        # Calls that arrive now are refused, and not waited for: there may be no end of them.
        if not calls.isdisjoint(runner.calls):
            continue
        if acknowledged < 0:
            ends_s = min(ends_s, time.monotonic() + max_sending_s)
        before, acknowledged = acknowledged, acknowledged_bytes(port)
        still_looks = still_looks + 1 if acknowledged == before else 0
