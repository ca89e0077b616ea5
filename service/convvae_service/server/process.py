"""The process of a server: it serves until a signal, drains, and returns an exit code."""

import asyncio
import contextlib
import logging
import os
import signal
from typing import Any, NoReturn

from convvae.program.exit_codes import ExitCode
from convvae_service.errors import StartupError
from convvae_service.observability.logs import facts, flush_logs
from convvae_service.server.early_signals import stop_signals
from convvae_service.server.lifecycle import Server
from convvae_service.server.memory import freeze_startup_objects
from convvae_service.server.process_memory import return_large_blocks
from convvae_service.settings.serve import ServeSettings

__all__ = ["run"]

# Time for batches that still run when the last call has ended.
_MAX_BATCH_WAIT_S = 5.0
# Time to close all parts after that. Sending the last traces may take 3 s of it.
_MAX_CLOSE_S = 5.0

_log = logging.getLogger(__name__)
_Signals = asyncio.Queue[signal.Signals]


async def run(settings: ServeSettings) -> ExitCode:
    """Serve until a signal, drain, and return the exit code.

    SIGTERM and SIGHUP drain. SIGINT drains without the delay: no balancer waits for a keyboard.

    Args:
        settings: The settings of the server.

    Returns:
        0 after a drain; 1 after a second signal, a batch that did not end, or an internal error.

    Raises:
        StartupError: The server cannot start.
    """
    return_large_blocks()
    signals: _Signals = asyncio.Queue()
    loop = asyncio.get_running_loop()
    # It may wait for a disk that hangs, and the event loop with it. Until then a signal ends the process.
    server = Server(settings)
    for number in stop_signals():
        loop.add_signal_handler(number, signals.put_nowait, number)
    code = ExitCode.FAILED
    try:
        code = await _serve(server, settings, signals)
    finally:
        await _close(server, signals, code)
    # A start that fails has its error as the only line.
    _log.info("stopped")
    return code


async def _serve(server: Server, settings: ServeSettings, signals: _Signals) -> ExitCode:
    starting = asyncio.ensure_future(server.start(before_ready=freeze_startup_objects))
    number = await _signal_during(starting, signals)
    if not starting.done():
        _log.info("stopping during the start")
        server.stop_loading()
        await _signal_during(starting, signals)
        if not starting.done():
            # A thread that loads a graph cannot be interrupted.
            _exit(ExitCode.FAILED)
        with contextlib.suppress(StartupError):
            starting.result()
        return ExitCode.DONE
    starting.result()
    if number is None:
        number = await signals.get()
    delay_s = 0.0 if number is signal.SIGINT else settings.drain_delay_s
    draining = asyncio.ensure_future(server.drain(delay_s=delay_s, grace_s=settings.grace_s))
    await _signal_during(draining, signals)
    if not draining.done():
        _log.warning("second signal: stopping at once", extra=facts(in_flight=server.in_flight))
        if server.computing:
            _exit(ExitCode.FAILED)
        draining.cancel()
        return ExitCode.FAILED
    if error := draining.exception():
        _log.error("internal error: the drain ends early", exc_info=error)
        if server.computing:
            _exit(ExitCode.FAILED)
        return ExitCode.FAILED
    lanes = asyncio.ensure_future(server.wait_for_lanes(at_most_s=_MAX_BATCH_WAIT_S))
    await _signal_during(lanes, signals)
    if not lanes.done():
        _log.warning("second signal: stopping while a batch runs")
        _exit(ExitCode.FAILED)
    if not lanes.result():
        _log.error("a batch does not end: stopping while it runs")
        _exit(ExitCode.FAILED)
    return ExitCode.DONE


async def _close(server: Server, signals: _Signals, code: ExitCode) -> None:
    """Close the server. End the process if a thread never ends, as on a network disk that hangs."""
    closing = asyncio.ensure_future(_close_all(server))
    number = await _signal_during(closing, signals, at_most_s=_MAX_CLOSE_S)
    if closing.done():
        closing.result()
        return
    if number is not None:
        _log.warning("second signal: stopping at once")
        code = ExitCode.FAILED
    else:
        _log.warning("a thread does not end: stopping while it runs")
    _exit(code)


async def _close_all(server: Server) -> None:
    await server.close()
    # Otherwise asyncio shuts the executor down when the loop closes, without a time limit.
    await asyncio.get_running_loop().shutdown_default_executor()


async def _signal_during(
    work: asyncio.Future[Any], signals: _Signals, *, at_most_s: float | None = None
) -> signal.Signals | None:
    """Wait until `work` ends, a signal arrives, or the time is up. Return the signal, None without one."""
    arriving = asyncio.ensure_future(signals.get())
    await asyncio.wait((work, arriving), timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
    if arriving.done():
        return arriving.result()
    arriving.cancel()
    return None


def _exit(code: ExitCode) -> NoReturn:
    """End the process at once, without the threads that still run."""
    flush_logs()
    os._exit(code)
