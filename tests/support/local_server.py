"""A server on the test's own event loop, for tests that reach inside."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from convvae_service.server.lifecycle import Server
from convvae_service.settings.loader import load_settings


@asynccontextmanager
async def started(models: Path, *flags: str) -> AsyncIterator[tuple[Server, str]]:
    """Start a server of `models` for the length of an `async with` block: the server and its address."""
    words = ["--models", str(models), "--address", "127.0.0.1:0", "--metrics-address", "off", *flags]
    server = Server(load_settings([*words, "--device", "cpu"]))
    try:
        yield server, (await server.start())[0]
    finally:
        await server.close()
