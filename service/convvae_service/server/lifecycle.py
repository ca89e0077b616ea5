"""The life of a server: it starts, serves, drains and closes."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from convvae_service.calls.state import State
from convvae_service.errors import StartupError
from convvae_service.observability.logs import facts
from convvae_service.repository.watch import Watch
from convvae_service.server.assembly import assemble
from convvae_service.server.connection_watch import ConnectionWatch
from convvae_service.server.connections import connection_limit, many_open_files, open_file_limit
from convvae_service.server.draining import wait_until_quiet
from convvae_service.server.memory import return_freed_memory
from convvae_service.server.metrics_page import MetricsPage
from convvae_service.server.service_manager import READY, STOPPING, notify_manager
from convvae_service.settings.serve import ServeSettings

__all__ = ["Server"]

# Before a drain stops the front, it waits until no call has arrived for this time, or for the maximum.
_QUIET_S = 0.05
_MAX_QUIET_WAIT_S = 0.5

_log = logging.getLogger(__name__)


class Server:
    """One server of one model repository. Create, start and drain it in one event loop."""

    def __init__(self, settings: ServeSettings) -> None:
        """Build the parts; nothing is loaded and no port is open yet.

        Raises:
            StartupError: There is nothing to serve, or a file of certificates or tokens cannot be used.
        """
        self._settings = settings
        self.parts = assemble(settings)
        self._metrics_page: MetricsPage | None = None
        self._watch: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []
        self._stop_loading = threading.Event()

    async def start(self, *, before_ready: Callable[[], None] = lambda: None) -> tuple[str, ...]:
        """Open the addresses, load and warm every model, report SERVING, and return the addresses.

        Args:
            before_ready: Called when all models are loaded and no call is in flight yet.

        Raises:
            StartupError: An address cannot be used, or a model cannot be served.
        """
        started_s = time.monotonic()
        parts, settings = self.parts, self._settings
        opened = parts.front.open_addresses()
        if settings.metrics_address != "off":
            self._metrics_page = MetricsPage(parts.metrics.registry, settings.metrics_address)
        self._start_threads()
        # Health answers from here on: alive, and not ready yet.
        await parts.front.start()
        if parts.watchdog is not None:
            self._run_in_background(parts.watchdog.run())
        self._watch_connections()
        self._run_in_background(return_freed_memory(lambda: parts.runner.last_arrival_s))
        await parts.loader.load(stop=self._stop_loading)
        if self._stop_loading.is_set():
            return opened
        before_ready()
        parts.runner.state = State.SERVING
        self._report_health()
        if settings.watch:
            self._watch = asyncio.create_task(self._build_watch().run())
        _log.info(
            "serving",
            extra=facts(**self._description(opened), seconds=round(time.monotonic() - started_s, 3)),
        )
        notify_manager(READY)
        return opened

    def stop_loading(self) -> None:
        """End a start that is under way. A version that a thread is loading is dropped."""
        self._stop_loading.set()
        self._run_in_background(self.parts.loader.give_up())

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        """Stop in three steps that no caller needs to notice.

        Report NOT_SERVING and serve on for `delay_s` seconds, while balancers turn away. Then refuse new
        calls. Then let those in flight finish; calls that need more than `grace_s` seconds are cancelled.
        """
        runner = self.parts.runner
        notify_manager(STOPPING)
        await self._stop_watching()
        runner.state = State.DRAINING
        self.parts.health.set_unready()
        _log.info("draining", extra=facts(delay_s=delay_s, grace_s=grace_s, in_flight=runner.in_flight))
        await asyncio.sleep(delay_s)
        # When grpcio stops, it resets the calls that it has not handed over yet, which callers see as
        # CANCELLED. UNAVAILABLE sends callers to another server; after a quiet moment there is no call left
        # to reset.
        runner.state = State.STOPPING
        await wait_until_quiet(runner, _QUIET_S, at_most_s=_MAX_QUIET_WAIT_S)
        self.parts.front.stop_reading()
        self.parts.health.end_watches()
        await self.parts.front.stop(grace_s)

    @property
    def in_flight(self) -> int:
        """Number of calls that run now."""
        return self.parts.runner.in_flight

    @property
    def computing(self) -> bool:
        """Whether a thread loads a version or runs a batch. Neither can be interrupted."""
        return self.parts.loader.loading or bool(self.parts.batcher.runs)

    async def wait_for_lanes(self, *, at_most_s: float) -> bool:
        """Wait until no batch runs, and return whether that is so after `at_most_s` seconds at the latest."""
        batcher = self.parts.batcher
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while batcher.runs:  # noqa: ASYNC110 - nothing signals the end of the last batch
                    await asyncio.sleep(0.02)
        return not batcher.runs

    async def close(self) -> None:
        """Close the addresses at once, and then every other part."""
        parts = self.parts
        parts.runner.state = State.STOPPING
        await self._stop_watching()
        for task in self._background:
            task.cancel()
        await parts.front.stop(None)
        parts.credentials.close()
        if self._metrics_page is not None:
            await asyncio.to_thread(self._metrics_page.close)
        await asyncio.to_thread(parts.batcher.close)
        await asyncio.to_thread(parts.workers.shutdown)
        await asyncio.to_thread(parts.decoding_threads.child.close)
        await parts.loader.close()
        if parts.tracing is not None:
            await asyncio.to_thread(parts.tracing.close)

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.append(asyncio.create_task(work))

    def _start_threads(self) -> None:
        """Start the threads that calls need: a server without them must not report SERVING."""
        try:
            self.parts.runner.start()
            self.parts.batcher.start()
            self.parts.credentials.start(self.parts.metrics)
        except RuntimeError as error:
            raise StartupError(
                f"no thread can be started ({error}): allow the process more threads, or give fewer --lanes"
            ) from None

    def _watch_connections(self) -> None:
        refuses = self.parts.front.limits_connections
        wanted = self._settings.max_connections
        limit = connection_limit(wanted) if refuses else many_open_files()
        if refuses and limit < wanted:
            _log.warning(
                "open files are too few for --max-connections: raise their limit (ulimit -n)",
                extra=facts(max_connections=wanted, open_files=open_file_limit(), connections=limit),
            )
        if limit:
            watch = ConnectionWatch(ends=self.parts.front.ends, limit=limit, refuses=refuses)
            self._run_in_background(watch.run())

    def _build_watch(self) -> Watch:
        return Watch(
            self.parts.repository,
            self.parts.loader,
            interval_s=self._settings.watch_interval_s,
            after_change=self._report_health,
            on_error=self.parts.metrics.watch_errors.inc,
        )

    async def _stop_watching(self) -> None:
        """Let the repository change no more. A version that a thread is loading is dropped."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))

    def _report_health(self) -> None:
        repository = self.parts.repository
        ready = {name: entry.default is not None for name, entry in repository.models.items()}
        ready |= {alias: ready[name] for alias, name in repository.aliases.items() if name in ready}
        self.parts.health.follow(ready)

    def _description(self, opened: tuple[str, ...]) -> dict[str, Any]:
        """Return the facts for the log line of a server that serves."""
        settings, page = self._settings, self._metrics_page
        metrics_host = settings.metrics_address.rpartition(":")[0]
        return {
            "address": ", ".join(opened),
            "front": self.parts.front_choice.name,
            "front_reason": self.parts.front_choice.reason,
            "tls": settings.tls_certificate is not None,
            "tokens": settings.token_file is not None,
            "tracing": self.parts.tracing is not None,
            "metrics": f"{metrics_host}:{page.port}" if page else "off",
            "models": [f"{version.name}@{version.version}" for version in self.parts.repository.loaded],
        }
