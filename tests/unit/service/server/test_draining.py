"""The waits of a drain."""

import asyncio

from convvae_service.calls.runner import CallRunner
from convvae_service.observability.metrics import Metrics
from convvae_service.server.draining import wait_until_quiet


async def test_quiet_waits_for_the_last_arrival() -> None:
    """Each arrival puts the end off, and the bound holds whatever arrives."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60)

    loop = asyncio.get_running_loop()
    runner.last_arrival_s = loop.time()
    started_s = loop.time()
    await wait_until_quiet(runner, 0.1, at_most_s=5)
    first_s = loop.time() - started_s

    async def keep_calling() -> None:
        while True:
            runner.last_arrival_s = loop.time()
            await asyncio.sleep(0.01)

    calling = asyncio.create_task(keep_calling())
    await asyncio.sleep(0)
    started_s = loop.time()
    await wait_until_quiet(runner, 0.1, at_most_s=0.3)
    calling.cancel()
    second_s = loop.time() - started_s
    assert 0.09 <= first_s < 2
    assert 0.29 <= second_s < 3
