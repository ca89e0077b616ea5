"""The waits of a drain: until no call arrives, and until no call runs and no caller reads its answer."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Set

from convvae_service.calls.runner import CallRunner
from convvae_service.server.local_addresses import LocalEnd
from convvae_service.server.sent_bytes import acknowledged_bytes

__all__ = ["wait_for_calls", "wait_until_quiet"]

_INTERVAL_S = 0.02
# This number of looks at callers that take no byte takes half a second, or longer if the event loop is busy:
# answers that wait for it are sent first.
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
    ends: Set[LocalEnd],
    grace_s: float,
    max_sending_s: float = math.inf,
    is_sending_unseen: Callable[[], bool] = lambda: False,
) -> None:
    """Return when the calls that run now have ended and their callers take no more bytes.

    Nothing tells a silent peer from a caller that reads slowly, except the bytes that it takes. A peer that
    takes none for half a second is not waited for.

    Args:
        is_over: Returns whether there is nothing to wait for: every answer is sent.
        runner: Knows the calls that run.
        ends: The server's ends of the connections.
        grace_s: Maximum seconds for all of it.
        max_sending_s: Maximum seconds for the answers when the last call has ended.
        is_sending_unseen: Returns whether answers are not sent yet to callers of whom the system does not say
            whether they take bytes: those are waited for.
    """
    calls = runner.calls
    ends_s = time.monotonic() + grace_s
    still_looks = 0
    taken: int | None = None
    while not is_over() and time.monotonic() < ends_s and still_looks < _MAX_STILL_LOOKS:
        await asyncio.sleep(_INTERVAL_S)
        # Calls that arrive now are refused, and not waited for: there may be no end of them.
        if not calls.isdisjoint(runner.calls):
            continue
        if taken is None:
            ends_s = min(ends_s, time.monotonic() + max_sending_s)
        before, taken = taken, acknowledged_bytes(ends)
        still_looks = still_looks + 1 if taken == before and not is_sending_unseen() else 0
