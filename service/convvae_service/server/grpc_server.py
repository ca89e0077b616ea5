"""The server: its parts put together, its start, its drain and its end."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from convvae.v1 import vae_pb2, vae_pb2_grpc
from convvae_service.api.servicer import VaeServicer, call_limits
from convvae_service.batching.batcher import Batcher
from convvae_service.calls.request_guard import RequestGuard
from convvae_service.calls.runner import CallRunner
from convvae_service.engine.arena import Arenas
from convvae_service.engine.cpus import available_cpus
from convvae_service.errors import StartupError
from convvae_service.observability.logs import facts
from convvae_service.observability.metrics import Metrics, MetricsPage
from convvae_service.open_inference.servicer import OpenInferenceServicer
from convvae_service.repository.catalog import Repository
from convvae_service.repository.loaded_version import EngineOptions, LoadedVersion
from convvae_service.repository.loader import Loader, VersionChange
from convvae_service.repository.watch import Watch
from convvae_service.server.auth import TokenInterceptor, Tokens
from convvae_service.server.connections import server_options
from convvae_service.server.health import Health
from convvae_service.server.memory import return_freed_memory
from convvae_service.server.tls import server_credentials
from convvae_service.server.watchdog import PARTS, Watchdog
from convvae_service.settings.serve import ServeSettings

if TYPE_CHECKING:
    from convvae_service.observability.tracing import Tracing

__all__ = ["Server"]

_SERVICE_NAME = vae_pb2.DESCRIPTOR.services_by_name["VaeService"].full_name
_HEALTH_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_QUIET_S = 0.05
_MAX_QUIET_WAIT_S = 0.5

_log = logging.getLogger(__name__)


class Server:
    """One gRPC server over one model repository; made, started and drained in one event loop."""

    def __init__(self, settings: ServeSettings) -> None:
        """Look at the repository; nothing is loaded and no port is open yet.

        Raises:
            StartupError: There is nothing to serve, or a file of certificates or tokens cannot be used.
        """
        self._settings = settings
        self._metrics = Metrics()
        self._repository = Repository(
            settings.models,
            pinned=settings.pinned_versions,
            policies=settings.version_policies,
            precisions=settings.precision_policies,
            may_be_empty=settings.watch,
        )
        self._loader = Loader(
            self._repository,
            EngineOptions(
                device=settings.device,
                threads=settings.threads or max(1, available_cpus() // settings.lanes),
                max_batch_rows=settings.max_batch_rows,
                arenas=Arenas(use=settings.arena, max_gpu_bytes=settings.max_gpu_arena_bytes),
            ),
            check=self._check_fits,
            on_change=self._count_change,
        )
        self._started = False
        self._watching: asyncio.Task[None] | None = None
        self._guarding: asyncio.Task[None] | None = None
        self._giving_back: asyncio.Task[None] | None = None
        self._batcher = Batcher(
            lanes=settings.lanes,
            max_batch_rows=settings.max_batch_rows,
            max_queued_rows=settings.max_queued_rows,
            max_queued_bytes=settings.max_queued_bytes,
            max_queue_delay_s=settings.max_queue_delay_us / 1e6,
            on_batch=self._metrics.count_batch,
        )
        self._metrics.watch_queue(lambda: self._batcher.queued_rows, lambda: self._batcher.queued_bytes)
        self._runner = CallRunner(
            metrics=self._metrics,
            max_call_s=settings.max_call_s,
            access_log_sample=settings.access_log_sample,
        )
        self._file_decoders = ThreadPoolExecutor(available_cpus(), thread_name_prefix="files")
        self._health = Health((_SERVICE_NAME,), self._repository.models)
        self._page: MetricsPage | None = None
        self._stop_loading = threading.Event()
        self._credentials = (
            server_credentials(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
            if settings.tls_certificate and settings.tls_key
            else None
        )
        interceptors: list[grpc.aio.ServerInterceptor] = []
        self._tracing = _make_tracing(settings)
        if self._tracing is not None:
            self._batcher.observe_call = self._tracing.begin
            interceptors.append(self._tracing.interceptor)
        if settings.token_file:
            interceptors.append(TokenInterceptor(Tokens(settings.token_file), self._runner))
        self._grpc = grpc.aio.server(interceptors=interceptors, options=server_options(settings))
        servicer = VaeServicer(
            settings=settings,
            repository=self._repository,
            batcher=self._batcher,
            runner=self._runner,
            file_decoders=self._file_decoders,
        )
        self._request_guard = RequestGuard(self._grpc, self._runner)
        arriving = cast("grpc.aio.Server", self._request_guard)
        vae_pb2_grpc.add_VaeServiceServicer_to_server(servicer, arriving)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, arriving)
        names = [_SERVICE_NAME, _HEALTH_NAME, reflection.SERVICE_NAME]
        if settings.open_inference:
            open_inference = OpenInferenceServicer(
                settings=settings,
                repository=self._repository,
                batcher=self._batcher,
                runner=self._runner,
                is_ready=lambda: self._health.ready,
                is_live=lambda: self._health.alive,
            )
            names.append(open_inference.add_to(arriving))
        if settings.reflection:
            # What enables it looks at the server's class, and would take a servicer with threads.
            servicing = reflection.aio.ReflectionServicer(names)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicing, arriving)

    async def start(self, *, before_ready: Callable[[], None] = lambda: None) -> int:
        """Open the port, load and warm every model, report SERVING, and return the port.

        Args:
            before_ready: Called when all is loaded and no call is in flight yet.

        Raises:
            StartupError: An address cannot be used, or a model cannot be served.
        """
        started_s = time.monotonic()
        address = self._settings.address
        try:
            if self._credentials is None:
                port = self._grpc.add_insecure_port(address)
            else:
                port = self._grpc.add_secure_port(address, self._credentials)
        except RuntimeError:
            raise StartupError(
                f"address {address} cannot be used: taken by another server, or no address of this machine"
            ) from None
        if self._settings.metrics_address != "off":
            self._page = MetricsPage(self._metrics.registry, self._settings.metrics_address)
        # Health answers from here on: alive, and not yet ready.
        await self._grpc.start()
        self._start_watchdog()
        self._giving_back = asyncio.create_task(return_freed_memory(lambda: self._runner.last_arrival_s))
        await self._loader.load(stop=self._stop_loading)
        if self._stop_loading.is_set():
            return port
        before_ready()
        self._started = True
        self._runner.unavailable_reason = ""
        await self._report_health()
        if self._settings.watch:
            watch = Watch(
                self._repository,
                self._loader,
                interval_s=self._settings.watch_interval_s,
                after_change=self._report_health,
                on_error=self._metrics.watch_errors.inc,
            )
            self._watching = asyncio.create_task(watch.run())
        host = address.rpartition(":")[0]
        _log.info(
            "serving",
            extra=facts(
                address=f"{host}:{port}",
                tls=self._credentials is not None,
                tokens=self._settings.token_file is not None,
                tracing=self._tracing is not None,
                metrics=f"{self._settings.metrics_address.rpartition(':')[0]}:{self._page.port}"
                if self._page
                else "off",
                models=[f"{version.name}@{version.version}" for version in self._repository.loaded],
                seconds=round(time.monotonic() - started_s, 3),
            ),
        )
        return port

    def stop_loading(self) -> None:
        """Let a start that is under way end after the version that it loads now."""
        self._stop_loading.set()

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        """Turn unready, serve on for `delay_s`, then refuse new calls and let those in flight finish.

        Calls that take longer than `grace_s` are cancelled.
        """
        await self._stop_watching()
        self._health.set_unready()
        _log.info("draining", extra=facts(delay_s=delay_s, grace_s=grace_s, in_flight=self._runner.in_flight))
        await asyncio.sleep(delay_s)
        # When gRPC stops it resets calls that it has not handed over yet, which callers see as CANCELLED.
        # UNAVAILABLE sends them to another server; when they have gone, there is nothing left to reset.
        self._runner.unavailable_reason = "the server is stopping"
        await self._runner.wait_until_idle(_QUIET_S, at_most_s=_MAX_QUIET_WAIT_S)
        self._request_guard.end()
        self._health.end_watches()
        await self._grpc.stop(grace_s)

    @property
    def in_flight(self) -> int:
        """Calls being answered."""
        return self._runner.in_flight

    @property
    def computing(self) -> bool:
        """Whether a thread loads a version or runs a batch; neither can be interrupted."""
        return self._loader.loading or bool(self._batcher.runs)

    async def lanes_end(self, *, at_most_s: float) -> bool:
        """Wait until no batch runs any more, and tell whether it has come to that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while self._batcher.runs:  # noqa: ASYNC110 - there is nothing to be woken by
                    await asyncio.sleep(0.02)
        return not self._batcher.runs

    async def close(self) -> None:
        """Close the port at once, and everything behind it."""
        await self._stop_watching()
        for background in (self._guarding, self._giving_back):
            if background is not None:
                background.cancel()
        await self._grpc.stop(None)
        if self._page is not None:
            await asyncio.to_thread(self._page.close)
        self._batcher.close()
        await asyncio.to_thread(self._file_decoders.shutdown)
        await self._loader.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        _log.info("stopped")

    def _start_watchdog(self) -> None:
        if self._settings.watchdog_timeout_s:
            for part in PARTS:
                self._metrics.show_stuck(part, False)
            watchdog = Watchdog(
                timeout_s=self._settings.watchdog_timeout_s,
                runs=lambda: self._batcher.runs,
                set_alive=self._report_alive,
                on_change=self._metrics.show_stuck,
            )
            self._guarding = asyncio.create_task(watchdog.run())

    async def _stop_watching(self) -> None:
        """Let nothing change any more; a version that a thread loads now is given up."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))

    async def _report_health(self) -> None:
        models = self._repository.models
        self._health.follow({name: entry.default is not None for name, entry in models.items()})

    async def _report_alive(self, alive: bool) -> None:
        self._health.set_alive(alive)

    def _check_fits(self, version: LoadedVersion) -> None:
        if call_limits(self._settings, version).max_rows < 1:
            raise StartupError(
                f"one image of model {version.name!r} ({version.manifest.image}) does not fit into a"
                " message: raise --max-message-bytes"
            )

    def _count_change(self, change: VersionChange) -> None:
        if change.result == "failed":
            self._metrics.load_failures.labels(change.model).inc()
        if self._started:
            self._metrics.reloads.labels(change.model, change.result).inc()
        # Also when one of two with the same number, whose files were changed, has gone.
        if change.loaded is not None:
            engine = change.loaded.engine
            labels = (change.model, str(change.version), engine.precision, engine.provider)
            if any((v.name, v.version) == (change.model, change.version) for v in self._repository.loaded):
                self._metrics.model_info.labels(*labels).set(1)
            else:
                with contextlib.suppress(KeyError):
                    self._metrics.model_info.remove(*labels)


def _make_tracing(settings: ServeSettings) -> "Tracing | None":
    """Return what makes traces, where the settings or OpenTelemetry's own variables ask for it."""
    environ = os.environ
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    has_endpoint = any(
        environ.get(name) for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )
    if not settings.tracing and not has_endpoint:
        return None
    try:
        from convvae_service.observability import tracing
    except ModuleNotFoundError as error:
        missing = f"{error.name} is not installed, which traces need: pip install 'convvae[tracing]'"
        if settings.tracing:
            raise StartupError(missing) from None
        # A variable that a whole cluster has must not stop a server.
        _log.warning("no traces", extra=facts(reason=missing))
        return None
    return tracing.Tracing(tracing.otlp_processor())
