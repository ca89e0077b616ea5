"""One call of every kind to a model of 28x28x1. Each takes another path through the service."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from convvae_service.bundle import ImageShape
from open_inference import inference_pb2_grpc
from support.inference_wire import encode_request
from support.tiny_bundle import publish_tiny
from support.wire import pixels, png, random_images, vectors

SHAPE = ImageShape(height=28, width=28, channels=1)
LATENT_DIM = 32
STREAM = "stream"
# 100 kB of pixels.
_IMAGES = random_images(128, *SHAPE.as_tuple)
_LATENTS = np.random.default_rng(0).normal(size=(128, LATENT_DIM)).astype(np.float32)
_FILES = [png(image) for image in _IMAGES]
# A worker makes this number of rows of noise.
_NOISY_ROWS = 640


@dataclass(frozen=True)
class EveryCall:
    """Functions that make a call of each kind, by name, without waiting for its end. Each takes `timeout`."""

    by_kind: Mapping[str, Callable[..., Any]]

    def answers(self, timeout_s: float) -> dict[str, bytes]:
        """Return the reply to a call of each kind, which must be answered."""
        return {kind: answer_to(kind, make(timeout=timeout_s)) for kind, make in self.by_kind.items()}


def answer_to(kind: str, call: Any) -> bytes:
    """Wait for the reply to a call, or the replies of a stream, and return their bytes."""
    replies = list(call) if kind == STREAM else [call.result()]
    return b"".join(reply.SerializeToString(deterministic=True) for reply in replies)


def end_of(kind: str, call: Any) -> grpc.StatusCode:
    """Wait for the end of a call, and return its code. A stream does not end before its replies are read."""
    if kind == STREAM:
        with contextlib.suppress(grpc.RpcError):
            list(call)
    code: grpc.StatusCode = call.code()
    return code


def publish(root: Path) -> None:
    """Publish the model."""
    publish_tiny(root, shape=SHAPE, latent_dim=LATENT_DIM)


@contextmanager
def every_call(target: str) -> Iterator[EveryCall]:
    """Calls on a connection of their own."""
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        vae = vae_pb2_grpc.VaeServiceStub(channel)
        inference = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        requests: dict[str, tuple[Any, Any]] = {
            "pixels": (vae.Encode, pb.EncodeRequest(pixels=pixels(_IMAGES))),
            "files": (vae.Encode, pb.EncodeRequest(files=_FILES)),
            "latents": (vae.Decode, pb.DecodeRequest(latents=vectors(_LATENTS))),
            "noise": (vae.Sample, pb.SampleRequest(count=_NOISY_ROWS, seed=1)),
            "two stages": (vae.Reconstruct, pb.ReconstructRequest(pixels=pixels(_IMAGES))),
            "draws": (
                vae.Score,
                pb.ScoreRequest(pixels=pixels(_IMAGES[:64]), num_samples=_NOISY_ROWS // 64, seed=1),
            ),
            "inference": (inference.ModelInfer, encode_request(_IMAGES)),
        }
        makers: dict[str, Callable[..., Any]] = {
            kind: _future(method, request) for kind, (method, request) in requests.items()
        }

        def stream(timeout: float) -> Any:
            return inference.ModelStreamInfer(iter([encode_request(_IMAGES)] * 3), timeout=timeout)

        yield EveryCall({**makers, STREAM: stream})


def _future(method: Any, request: Any) -> Callable[..., Any]:
    return lambda timeout: method.future(request, timeout=timeout)
