"""Both clients with `coalesce=True`: callers at the same time share requests, and each gets its own rows."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convvae import AsyncClient, Client
from support.spoilt_servicer import Servicer, images

# Makes calls at the same time on one client, and returns the outcome of each.
Together = Callable[..., list[Any]]
# Method, positional and keyword arguments.
Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def in_threads(target: str, calls: list[Call], **settings: Any) -> list[Any]:
    """Call the methods of one `Client`, each in a thread of its own."""
    outcomes: list[Any] = [None] * len(calls)
    with Client(target, coalesce=True, **settings) as client:

        def work(index: int) -> None:
            method, args, kwargs = calls[index]
            try:
                outcomes[index] = getattr(client, method)(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the test reads it
                outcomes[index] = error

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return outcomes


def in_tasks(target: str, calls: list[Call], **settings: Any) -> list[Any]:
    """Call the methods of one `AsyncClient`, each in a task of its own."""

    async def main() -> list[Any]:
        async with AsyncClient(target, coalesce=True, **settings) as client:
            running = [getattr(client, method)(*args, **kwargs) for method, args, kwargs in calls]
            return await asyncio.gather(*running, return_exceptions=True)

    return asyncio.run(main())


@pytest.fixture(params=[in_threads, in_tasks], ids=["threads", "tasks"])
def together(request: pytest.FixtureRequest, target: str, servicer: Servicer) -> Together:
    """Make calls at the same time on one client of either kind, of a server with room for all their rows."""
    servicer.max_rows = 1000

    def call(calls: list[Call], **settings: Any) -> list[Any]:
        outcomes: list[Any] = request.param(target, calls, **settings)
        return outcomes

    return call


def test_each_caller_gets_its_own_rows(together: Together, servicer: Servicer) -> None:
    """Callers of one method share requests, and their answers are those that they get alone."""
    servicer.delay_s = 0.05
    calls: list[Call] = [("encode", (images(3) + np.uint8(first),), {}) for first in range(20)]
    answers = together(calls)
    for first, answer in enumerate(answers):
        assert answer.mean[:, 0].tolist() == [first, first + 1, first + 2]
        assert (answer.model, answer.version, answer.precision) == ("tiny", 1, "fp32")
        assert answer.log_variance is None
        answer.mean[0] = 5  # The caller owns the arrays.
        assert answer.mean.base is None
    assert servicer.count("Encode") <= 4
