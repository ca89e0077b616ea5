"""Both clients behind one fixture, and a server whose replies a test can change."""

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from convvae import AsyncClient, Client, RetryConfig
from support.spoilt_servicer import Invoke, Servicer, serving


@pytest.fixture
def servicer() -> Servicer:
    """A servicer with valid replies, which a test may change."""
    return Servicer()


@pytest.fixture
def target(servicer: Servicer) -> Iterator[str]:
    """The target at which `servicer` is served."""
    with serving(servicer) as address:
        yield address


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGINT, also if a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def invoke_sync(target: str, method: str, *args: Any, settings: dict[str, Any], **kwargs: Any) -> Any:
    """Call one method of `Client`."""
    with Client(target, **settings) as client:
        return getattr(client, method)(*args, **kwargs)


def invoke_async(target: str, method: str, *args: Any, settings: dict[str, Any], **kwargs: Any) -> Any:
    """Call one method of `AsyncClient`."""

    async def main() -> Any:
        async with AsyncClient(target, **settings) as client:
            return await getattr(client, method)(*args, **kwargs)

    return asyncio.run(main())


@pytest.fixture(params=[invoke_sync, invoke_async], ids=["sync", "async"])
def invoke(request: pytest.FixtureRequest, target: str) -> Invoke:
    """Call one method of a new client of either kind, with short waits between retries."""
    run: Invoke = request.param

    def call(method: str, *args: Any, settings: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        quick = {"retry": RetryConfig(backoff_s=0.001), "timeout_s": 10.0, **(settings or {})}
        return run(target, method, *args, settings=quick, **kwargs)

    return call
