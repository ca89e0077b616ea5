"""Calls that are cancelled, clients that are closed, and threads that share one."""

import asyncio
import signal
import threading
import time

import numpy as np
import pytest

import convvae
from convvae import AsyncClient, Client
from support.spoilt_servicer import Servicer, images
from support.waiting import wait_until


def test_closed_client_says_so(target: str) -> None:
    """A call after close is refused."""
    client = Client(target)
    client.close()
    with pytest.raises(convvae.ClientClosed):
        client.encode(images(1))


async def test_closed_async_client_says_so(target: str) -> None:
    """A call after close is refused by the asynchronous client too."""
    client = AsyncClient(target)
    await client.close()
    with pytest.raises(convvae.ClientClosed):
        await client.encode(images(1))


def test_close_during_a_call(target: str, servicer: Servicer) -> None:
    """Closing the client ends its calls with Cancelled, one request or many."""
    servicer.delay_s = 5.0
    for count in (1, 20):
        client = Client(target)
        client.model()
        threading.Timer(0.2, client.close).start()
        with pytest.raises(convvae.Cancelled):
            client.encode(images(count))


async def test_async_close_during_a_call(target: str, servicer: Servicer) -> None:
    """Closing the asynchronous client ends its calls with Cancelled too."""
    servicer.delay_s = 5.0
    for count in (1, 20):
        client = AsyncClient(target)
        await client.model()
        task = asyncio.create_task(client.encode(images(count)))
        await asyncio.sleep(0.2)
        await client.close()
        with pytest.raises(convvae.Cancelled):
            await task


@pytest.mark.parametrize(("count", "requests"), [(1, 1), (100, 4)])
async def test_cancelled_task_cancels_its_requests(
    target: str, servicer: Servicer, count: int, requests: int
) -> None:
    """Cancelling a task raises CancelledError in it, and the server sees its requests cancelled."""
    servicer.delay_s = 5.0
    async with AsyncClient(target) as client:
        task = asyncio.create_task(client.encode(images(count)))
        await asyncio.to_thread(wait_until, lambda: servicer.in_flight == requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: servicer.cancelled == requests)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_cancels_the_requests(target: str, servicer: Servicer) -> None:
    """Ctrl-C ends a call at once and leaves nothing running on the server."""
    servicer.delay_s = 5.0
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    for count in (1, 100):
        with Client(target) as client:
            client.model()
            timer = threading.Timer(0.3, lambda: signal.pthread_kill(main_thread, signal.SIGINT))
            timer.start()
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                client.encode(images(count))
            assert time.monotonic() - start < 3
            wait_until(lambda: servicer.in_flight == 0)


def test_threads_share_a_client(target: str, servicer: Servicer) -> None:
    """Several threads may call at the same time, and each gets its own rows."""
    results: dict[int, list[float]] = {}
    with Client(target) as client:

        def work(first: int) -> None:
            rows = images(12) + np.uint8(first)
            results[first] = client.encode(rows).mean[:, 0].tolist()

        threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 80, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {first: list(range(first, first + 12)) for first in range(0, 80, 10)}
