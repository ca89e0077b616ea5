"""A server of one small model whose replies a test can change, for faults that a real server never has."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from convvae.v1 import vae_pb2, vae_pb2_grpc

HEIGHT, WIDTH, CHANNELS, LATENT_DIM = 4, 3, 1, 2
# Calls a method of a fresh client, which the fixture `invoke` makes.
Invoke = Callable[..., Any]


class Refusal(Exception):
    """Fails an RPC with a status and details."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str = "",
        *,
        violations: dict[str, str] | None = None,
        retry_delay_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        status = status_pb2.Status(code=code.value[0], message=message)
        if violations:
            bad = error_details_pb2.BadRequest()
            for name, description in violations.items():
                bad.field_violations.add(field=name, description=description)
            status.details.add().Pack(bad)
        if retry_delay_s is not None:
            delay = duration_pb2.Duration(nanos=int(retry_delay_s * 1e9))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        self.metadata = (
            ("grpc-status-details-bin", status.SerializeToString()),
            ("x-request-id", "id-7"),
        )


@dataclass
class Servicer(vae_pb2_grpc.VaeServiceServicer):
    """A servicer that answers each row with the row's first value, so that order and offsets are visible.

    Attributes:
        before: Called with the method's name and the request before it is answered; may raise `Refusal`.
        seen: Every request, with its method.
        versions: Those that are loaded; the last is the default.
    """

    before: Callable[[str, Any], None] = lambda _method, _request: None
    seen: list[tuple[str, Any]] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    versions: tuple[int, ...] = (1,)
    latent_dim: int = LATENT_DIM
    max_rows: int = 5
    max_message_bytes: int = 1 << 20
    max_queued_rows: int = 1000
    delay_s: float = 0.0
    cancelled: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str) -> int:
        """Return how often a method was called."""
        return sum(name == method for name, _ in self.seen)

    def answer(self, method: str, request: Any, context: grpc.ServicerContext) -> vae_pb2.ServedModel:
        with self.lock:
            self.seen.append((method, request))
            self.metadata.append(dict(context.invocation_metadata()))
            self.in_flight += 1
            self.most_in_flight = max(self.in_flight, self.most_in_flight)
        context.add_callback(self._ended)
        try:
            self.before(method, request)
            if request.model.version not in (0, *self.versions):
                raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "the version is not loaded")
        except Refusal as refusal:
            context.set_trailing_metadata(refusal.metadata)
            context.abort(refusal.code, str(refusal))
        if method != "GetModel":
            end = time.monotonic() + self.delay_s
            while time.monotonic() < end and context.is_active():
                time.sleep(0.005)
            if not context.is_active():
                self.cancelled += 1
        version = request.model.version or self.versions[-1]
        return vae_pb2.ServedModel(name="tiny", version=version, precision="fp32")

    def _ended(self) -> None:
        with self.lock:
            self.in_flight -= 1

    def firsts(self, request: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the first byte of every image."""
        if request.files:
            return np.array([file[0] for file in request.files], np.uint8)
        shape = (request.pixels.count, request.pixels.height, request.pixels.width, request.pixels.channels)
        return np.frombuffer(request.pixels.data, np.uint8).reshape(shape)[:, 0, 0, 0]

    def pixels(self, firsts: Any) -> vae_pb2.Pixels:
        images = np.zeros((len(firsts), HEIGHT, WIDTH, CHANNELS), np.uint8)
        images[:] = np.asarray(firsts, np.uint8)[:, None, None, None]
        return vae_pb2.Pixels(
            data=images.tobytes(), count=len(images), height=HEIGHT, width=WIDTH, channels=CHANNELS
        )

    def vectors(self, firsts: Any) -> vae_pb2.Vectors:
        array = np.repeat(np.asarray(firsts, "<f4")[:, None], self.latent_dim, axis=1)
        return vae_pb2.Vectors(data=array.tobytes(), count=len(array), dimension=self.latent_dim)

    def Encode(self, request: Any, context: Any) -> vae_pb2.EncodeResponse:  # noqa: N802
        served = self.answer("Encode", request, context)
        vectors = self.vectors(self.firsts(request))
        return vae_pb2.EncodeResponse(
            model=served, mean=vectors, log_variance=vectors if request.include_log_variance else None
        )

    def Decode(self, request: Any, context: Any) -> vae_pb2.DecodeResponse:  # noqa: N802
        served = self.answer("Decode", request, context)
        firsts = np.frombuffer(request.latents.data, "<f4").reshape(-1, self.latent_dim)[:, 0]
        return vae_pb2.DecodeResponse(model=served, images=self.pixels(firsts))

    def Sample(self, request: Any, context: Any) -> vae_pb2.SampleResponse:  # noqa: N802
        served = self.answer("Sample", request, context)
        rows = np.arange(request.first_row, request.first_row + request.count) % 256
        return vae_pb2.SampleResponse(
            model=served,
            images=self.pixels(rows),
            latents=self.vectors(rows * request.temperature),
            seed=request.seed if request.HasField("seed") else 12345,
        )

    def Reconstruct(self, request: Any, context: Any) -> vae_pb2.ReconstructResponse:  # noqa: N802
        served = self.answer("Reconstruct", request, context)
        return vae_pb2.ReconstructResponse(model=served, images=self.pixels(self.firsts(request)))

    def Score(self, request: Any, context: Any) -> vae_pb2.ScoreResponse:  # noqa: N802
        served = self.answer("Score", request, context)
        firsts = self.firsts(request).astype(float)
        return vae_pb2.ScoreResponse(
            model=served,
            elbo=-firsts,
            distortion=firsts,
            rate=firsts * 0,
            seed=(request.seed if request.HasField("seed") else 12345) if request.num_samples else None,
        )

    def ListModels(self, request: Any, _context: Any) -> vae_pb2.ListModelsResponse:  # noqa: N802
        self.seen.append(("ListModels", request))
        state = vae_pb2.VERSION_STATE_SERVING
        versions = [vae_pb2.VersionSummary(version=v, state=state, is_default=True) for v in self.versions]
        return vae_pb2.ListModelsResponse(models=[vae_pb2.ModelSummary(name="tiny", versions=versions)])

    def GetModel(self, request: Any, context: Any) -> vae_pb2.GetModelResponse:  # noqa: N802
        return vae_pb2.GetModelResponse(
            model=self.answer("GetModel", request, context),
            objective="vae",
            likelihood=vae_pb2.Likelihood(name="bernoulli", probability_clamp=1e-6),
            height=HEIGHT,
            width=WIDTH,
            channels=CHANNELS,
            latent_dim=self.latent_dim,
            capabilities=["encode", "decode", "sample", "reconstruct", "score"],
            precisions=["fp32"],
            limits=vae_pb2.Limits(
                max_rows_per_call=self.max_rows,
                max_message_bytes=self.max_message_bytes,
                max_queued_rows=self.max_queued_rows,
            ),
            manifest_json="{}",
        )


@contextmanager
def serving(servicer: Servicer) -> Iterator[str]:
    """Serve on a free port of the loopback, and yield the target."""
    server = grpc.server(futures.ThreadPoolExecutor(16))
    vae_pb2_grpc.add_VaeServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait(5)


def images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return images whose values are their index."""
    array = np.zeros((count, 4, 3, 1), np.uint8)
    array[:] = np.arange(count)[:, None, None, None]
    return array


def fail_first(times: int, method: str, code: grpc.StatusCode, **details: Any) -> Callable[[str, Any], None]:
    """Return a hook that refuses the first calls of a method."""
    left = [times]
    lock = threading.Lock()

    def before(called: str, _request: Any) -> None:
        with lock:
            if called == method and left[0] > 0:
                left[0] -= 1
                raise Refusal(code, "on purpose", **details)

    return before
