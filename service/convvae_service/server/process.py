"""The server's process: it serves until a signal, drains, and ends with a code that says how it went."""

import asyncio
import contextlib
import logging
import os
import signal
from typing import Any

from convvae_service.errors import StartupError
from convvae_service.observability.logs import facts
from convvae_service.server.grpc_server import Server
from convvae_service.server.memory import freeze_startup_objects
from convvae_service.settings.serve import ServeSettings

__all__ = ["run"]

# For batches that still run when the last call has ended.
_MAX_RUN_WAIT_S = 5.0
# For all that is closed after that: traces that are still to be sent have 3 s of their own.
_MAX_CLOSE_S = 5.0

_log = logging.getLogger(__name__)
_Signals = asyncio.Queue[signal.Signals]


async def run(settings: ServeSettings) -> int:
    """Serve until a signal, and return the exit code: 0 after a drain, 1 when it was cut short.

    A second signal cuts it short, and so does a batch that does not end, or a fault.

    SIGTERM drains; SIGINT drains without the delay, since nobody's balancer waits for a keyboard.

    Args:
        settings: What to serve and how.

    Raises:
        StartupError: The server cannot start.
    """
    signals: _Signals = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    server = Server(settings)
    code = 1
    try:
        code = await _serve(server, settings, signals)
    finally:
        await _close(server, signals, code)
    return code


async def _serve(server: Server, settings: ServeSettings, signals: _Signals) -> int:
    starting = asyncio.ensure_future(server.start(before_ready=freeze_startup_objects))
    number = await _signal_during(starting, signals)
    if not starting.done():
        _log.info("stopping during the start")
        server.stop_loading()
        await _signal_during(starting, signals)
        if not starting.done():
            # A graph that loads in a thread cannot be interrupted.
            os._exit(1)
        with contextlib.suppress(StartupError):
            starting.result()
        return 0
    starting.result()
    if number is None:
        number = await signals.get()
    delay_s = settings.drain_delay_s if number is signal.SIGTERM else 0.0
    draining = asyncio.ensure_future(server.drain(delay_s=delay_s, grace_s=settings.grace_s))
    await _signal_during(draining, signals)
    if not draining.done():
        _log.warning("second signal, stopping at once", extra=facts(in_flight=server.in_flight))
        if server.computing:
            os._exit(1)
        draining.cancel()
        return 1
    if error := draining.exception():
        _log.error("internal error, the drain is cut short", exc_info=error)
        if server.computing:
            os._exit(1)
        return 1
    lanes = asyncio.ensure_future(server.lanes_end(at_most_s=_MAX_RUN_WAIT_S))
    await _signal_during(lanes, signals)
    if not lanes.done():
        _log.warning("second signal, stopping without a batch that does not end")
        os._exit(1)
    if not lanes.result():
        _log.error("a batch does not end, stopping without it")
        os._exit(1)
    return 0


async def _close(server: Server, signals: _Signals, code: int) -> None:
    """Close the server. A thread that never ends, as on a network disk that hangs, ends with the process."""
    closing = asyncio.ensure_future(_close_all(server))
    number = await _signal_during(closing, signals, at_most_s=_MAX_CLOSE_S)
    if closing.done():
        return closing.result()
    if number is not None:
        _log.warning("second signal, stopping at once")
        code = 1
    else:
        _log.warning("a thread does not end, stopping without it")
    os._exit(code)


async def _close_all(server: Server) -> None:
    await server.close()
    # Else it is done when the event loop has gone, which waits for as long as it takes.
    await asyncio.get_running_loop().shutdown_default_executor()


async def _signal_during(
    work: asyncio.Future[Any], signals: _Signals, *, at_most_s: float | None = None
) -> signal.Signals | None:
    """Wait until `work` has ended, a signal comes, or the time is up; return the signal that came."""
    coming = asyncio.ensure_future(signals.get())
    await asyncio.wait((work, coming), timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
    if coming.done():
        return coming.result()
    coming.cancel()
    return None
