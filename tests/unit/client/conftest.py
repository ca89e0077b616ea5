"""Both clients by one name, and a server that a test can spoil."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from convvae import AsyncClient, Client, RetryConfig

from .servicer import Servicer, serving

Invoke = Callable[..., Any]


@pytest.fixture
def servicer() -> Servicer:
    """A healthy servicer; the test spoils it."""
    return Servicer()


@pytest.fixture
def target(servicer: Servicer) -> Iterator[str]:
    """Where `servicer` is served."""
    with serving(servicer) as address:
        yield address


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as KeyboardInterrupt: a shell that starts the tests in the background has it ignored."""
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
    """Call one method of a fresh client of either kind; retries come fast."""
    run: Invoke = request.param

    def call(method: str, *args: Any, settings: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        quick = {"retry": RetryConfig(backoff_s=0.001), "timeout_s": 10.0, **(settings or {})}
        return run(target, method, *args, settings=quick, **kwargs)

    return call
