"""The server's process: it serves until a signal, drains, and ends with a code that says how it went."""

import asyncio
import contextlib
import logging
import os
import signal

from convvae_service.errors import StartupError
from convvae_service.heap import keep_what_is_there
from convvae_service.logs import facts
from convvae_service.server import Server
from convvae_service.settings import ServeSettings

__all__ = ["run"]

# For batches that still run when the last call has ended.
_MAX_RUN_WAIT_S = 5.0

_log = logging.getLogger(__name__)


async def run(settings: ServeSettings) -> int:
    """Serve until a signal, and return the exit code: 0 after a drain, 1 when it was cut short.

    A second signal cuts it short, and so does a batch that does not end.

    SIGTERM drains; SIGINT drains without the delay, since nobody's balancer waits for a keyboard.

    Args:
        settings: What to serve and how.

    Raises:
        StartupError: The server cannot start.
    """
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    server = Server(settings)
    first_signal = asyncio.ensure_future(signals.get())
    try:
        starting = asyncio.ensure_future(server.start())
        await asyncio.wait((starting, first_signal), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            _log.info("stopping during the start")
            server.stop_loading()
            second_signal = asyncio.ensure_future(signals.get())
            await asyncio.wait((starting, second_signal), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                # A graph that loads in a thread cannot be interrupted.
                os._exit(1)
            second_signal.cancel()
            with contextlib.suppress(StartupError):
                starting.result()
            return 0
        starting.result()
        keep_what_is_there()
        delay_s = settings.drain_delay_s if await first_signal is signal.SIGTERM else 0.0
        draining = asyncio.ensure_future(server.drain(delay_s=delay_s, grace_s=settings.grace_s))
        second_signal = asyncio.ensure_future(signals.get())
        await asyncio.wait((draining, second_signal), return_when=asyncio.FIRST_COMPLETED)
        second_signal.cancel()
        if not draining.done():
            _log.warning("second signal, stopping at once", extra=facts(in_flight=server.in_flight))
            if server.computing:
                os._exit(1)
            draining.cancel()
            return 1
        if not await server.lanes_end(at_most_s=_MAX_RUN_WAIT_S):
            _log.error("a batch does not end, stopping without it")
            os._exit(1)
        return 0
    finally:
        first_signal.cancel()
        await server.close()
