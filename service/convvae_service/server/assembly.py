"""The parts of a server, built from its settings. Nothing is loaded and no port is open yet."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2

from convvae.v1 import vae_pb2
from convvae_service.api.limits import call_limits
from convvae_service.api.servicer import VaeServicer
from convvae_service.batching.batcher import Batcher
from convvae_service.batching.pending_bytes import PendingBytes
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.service import Service
from convvae_service.engine.arena import Arenas
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.parallelism import choose_parallelism
from convvae_service.errors import StartupError
from convvae_service.images import DecodingThreads, most_decoding_bytes
from convvae_service.observability.access_log import AccessLog
from convvae_service.observability.logs import facts
from convvae_service.observability.metrics import Metrics
from convvae_service.open_inference.servicer import OpenInferenceServicer
from convvae_service.repository.catalog import Repository
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.repository.loader import Loader
from convvae_service.repository.loading import EngineOptions
from convvae_service.repository.trial import LoadLimits
from convvae_service.server.credentials import Credentials
from convvae_service.server.fronts import Front, FrontChoice, build_front, choose_front
from convvae_service.server.health import HealthServicer
from convvae_service.server.reflection import REFLECTION, REFLECTION_V1, reflection_servicer
from convvae_service.server.version_metrics import VersionMetrics
from convvae_service.server.watchdog import PARTS, Watchdog
from convvae_service.settings.serve import ServeSettings
from open_inference import inference_pb2

if TYPE_CHECKING:
    from convvae_service.observability.tracing import Tracing

__all__ = ["Parts", "assemble"]

_VAE = vae_pb2.DESCRIPTOR.services_by_name["VaeService"]
_INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
_OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of one server."""

    metrics: Metrics
    tracing: "Tracing | None"
    runner: CallRunner
    repository: Repository
    loader: Loader
    batcher: Batcher
    workers: ThreadPoolExecutor
    decoding_threads: DecodingThreads
    health: HealthServicer
    credentials: Credentials
    front: Front
    front_choice: FrontChoice
    watchdog: Watchdog | None


def assemble(settings: ServeSettings) -> Parts:
    """Build the parts of a server and connect them.

    Raises:
        StartupError: There is nothing to serve, or a file of certificates or tokens cannot be used.
    """
    # First: it may refuse the settings.
    front_choice = choose_front(settings)
    settings = _with_parallelism(settings)
    metrics = Metrics()
    tracing = _build_tracing(settings)
    # One more than decode large files: small files never wait for them.
    workers = ThreadPoolExecutor(available_cpus() + 1, thread_name_prefix="worker")
    decoding_threads = DecodingThreads(
        workers, max_large=available_cpus(), max_bytes=most_decoding_bytes(settings.max_pixels_per_file)
    )
    runner = CallRunner(
        metrics=metrics,
        max_call_s=settings.max_call_s,
        pending=PendingBytes(settings.max_pending_bytes),
        max_request_bytes=settings.max_message_bytes,
        decoding_bytes=lambda: decoding_threads.held_bytes,
        access_log=AccessLog(settings.access_log_sample),
        tracing=tracing,
    )
    metrics.watch_calls(lambda: runner.in_flight)
    repository = _build_repository(settings)
    loader = _build_loader(settings, repository, VersionMetrics(metrics, repository, runner))
    batcher = _build_batcher(settings, metrics)
    metrics.watch_load(lambda: batcher.queued_rows, lambda: runner.pending.num_bytes)
    health = HealthServicer((_VAE.full_name,), (*repository.models, *repository.aliases))
    credentials = Credentials(settings)
    front = build_front(front_choice, settings, runner, credentials)
    parts = Parts(
        metrics=metrics,
        tracing=tracing,
        runner=runner,
        repository=repository,
        loader=loader,
        batcher=batcher,
        workers=workers,
        decoding_threads=decoding_threads,
        health=health,
        credentials=credentials,
        front=front,
        front_choice=front_choice,
        watchdog=_build_watchdog(settings, metrics, batcher, decoding_threads, health, front),
    )
    _add_services(settings, parts)
    return parts


def _with_parallelism(settings: ServeSettings) -> ServeSettings:
    """Return the settings with the numbers of lanes and threads that they leave open."""
    chosen = choose_parallelism(settings.lanes, settings.threads, device=settings.device)
    return settings.model_copy(update={"lanes": chosen.lanes, "threads": chosen.threads})


def _build_repository(settings: ServeSettings) -> Repository:
    return Repository(
        settings.models,
        pinned=settings.pinned_versions,
        policies=settings.version_policies,
        precisions=settings.precision_policies,
        model_name=settings.model_name,
        may_be_empty=settings.watch,
    )


def _build_loader(settings: ServeSettings, repository: Repository, metrics: VersionMetrics) -> Loader:
    def check_message_size(version: LoadedVersion) -> None:
        if call_limits(settings, version).max_rows < 1:
            raise StartupError(
                f"one image of model {version.name!r} ({version.manifest.image}) does not fit into a message"
                f" of {settings.max_message_bytes} bytes: raise --max-message-bytes"
            )

    options = EngineOptions(
        device=settings.device,
        threads=settings.threads,
        max_batch_rows=settings.max_batch_rows,
        arenas=Arenas(use=settings.arena, max_gpu_bytes=settings.max_gpu_arena_bytes),
        limits=LoadLimits(timeout_s=settings.load_timeout_s, max_bytes=settings.max_load_bytes),
    )
    return Loader(repository, options, check=check_message_size, on_change=metrics.add)


def _build_batcher(settings: ServeSettings, metrics: Metrics) -> Batcher:
    return Batcher(
        lanes=settings.lanes,
        max_batch_rows=settings.max_batch_rows,
        max_queued_rows=settings.max_queued_rows,
        max_queue_delay_s=settings.max_queue_delay_us / 1e6,
        on_batch=metrics.count_batch,
    )


def _build_watchdog(
    settings: ServeSettings,
    metrics: Metrics,
    batcher: Batcher,
    decoding_threads: DecodingThreads,
    health: HealthServicer,
    front: Front,
) -> Watchdog | None:
    if not settings.watchdog_timeout_s:
        return None
    for part in PARTS:
        metrics.show_stuck(part, False)
    return Watchdog(
        timeout_s=settings.watchdog_timeout_s,
        runs=lambda: batcher.runs,
        front_busy_since_s=lambda: front.busy_since_s,
        decoding_since_s=lambda: decoding_threads.busy_since_s,
        set_alive=health.set_alive,
        on_change=metrics.show_stuck,
    )


def _add_services(settings: ServeSettings, parts: Parts) -> None:
    """Give the front its services: the service's own, the Open Inference Protocol, health and reflection."""
    services = [_vae_service(settings, parts)]
    if settings.open_inference:
        services.append(_open_inference_service(settings, parts))
    for service in services:
        parts.front.add_service(service)
    # Health needs no token, so that probes need no secret.
    parts.front.add_servicer(_HEALTH, parts.health, needs_token=False)
    if settings.reflection:
        names = [*(service.descriptor.full_name for service in services), _HEALTH.full_name]
        servicer = reflection_servicer(names)
        for name in (REFLECTION.full_name, REFLECTION_V1):
            parts.front.add_servicer(REFLECTION, servicer, needs_token=True, name=name)


def _vae_service(settings: ServeSettings, parts: Parts) -> Service:
    return VaeServicer(
        settings=settings,
        repository=parts.repository,
        batcher=parts.batcher,
        workers=parts.workers,
        decoding_threads=parts.decoding_threads,
    ).service


def _open_inference_service(settings: ServeSettings, parts: Parts) -> Service:
    return OpenInferenceServicer(
        settings=settings,
        repository=parts.repository,
        batcher=parts.batcher,
        runner=parts.runner,
        workers=parts.workers,
        is_ready=lambda: parts.health.ready,
        # The native front asks from a thread of its own, also while the event loop is blocked.
        is_live=lambda: parts.watchdog is None or not parts.watchdog.stuck,
    ).service


def _build_tracing(settings: ServeSettings) -> "Tracing | None":
    """Return the maker of traces if the settings or OpenTelemetry's own variables switch traces on."""
    environ = os.environ
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if not settings.tracing and not any(environ.get(name) for name in _OTLP_ENDPOINTS):
        return None
    try:
        from convvae_service.observability import tracing
    except ModuleNotFoundError as error:
        missing = f"{error.name} is not installed, and traces need it: pip install 'convvae[tracing]'"
        if settings.tracing:
            raise StartupError(missing) from None
        # The variable may be set for a whole cluster: it must not stop a server.
        _log.warning("no traces", extra=facts(reason=missing))
        return None
    return tracing.Tracing(tracing.otlp_processor(), (_VAE, _INFERENCE))
