"""The waits of a drain: until no call arrives, and until no call is left."""

import asyncio
import contextlib
import time

from convvae_service.calls.runner import CallRunner

__all__ = ["wait_until_quiet"]


async def wait_until_quiet(runner: CallRunner, quiet_s: float, *, at_most_s: float) -> None:
    """Return when no call has arrived for `quiet_s` seconds, or after `at_most_s` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            # Each arrival extends the wait.
            while (left_s := runner.last_arrival_s + quiet_s - time.monotonic()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(left_s)
