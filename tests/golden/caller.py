"""Call every method of a server with the packages of an older commit: `record.py` runs it.

It uses only what the client had from the beginning, and the stubs of the commit.
"""

import contextlib
import io
import sys
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

import convvae
from convvae.v1 import vae_pb2, vae_pb2_grpc
from open_inference import inference_pb2 as pb
from open_inference import inference_pb2_grpc

NAME, SIDE, LATENT_DIM, TIMEOUT_S = "digits", 8, 4, 20.0
HEALTH_NAMES = ("", "convvae.v1.VaeService", NAME, "liveness")


def image_file(pixels: np.ndarray, form: str) -> bytes:
    """Return pixels (H, W) as an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def call_client(target: str) -> None:
    """Call by the client: arrays, files, seeds, and refusals."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, SIDE, SIDE, 1), np.uint8)
    latents = rng.normal(size=(3, LATENT_DIM)).astype(np.float32)
    ramp = np.linspace(0, 255, 20 * 16).reshape(20, 16).astype(np.uint8)
    files = [image_file(images[0, ..., 0], "PNG"), image_file(ramp, "PNG"), image_file(ramp, "JPEG")]
    with convvae.Client(target) as vae:
        vae.models()
        vae.model(model=NAME)
        vae.encode(images)
        vae.encode(images, include_log_variance=True, model=NAME)
        vae.encode(files, include_log_variance=True, model=f"{NAME}@1")
        vae.decode(latents)
        vae.sample(3, seed=7)
        vae.sample(2, seed=7, temperature=0.5, first_row=1)
        vae.reconstruct(images)
        vae.reconstruct(files)
        vae.score(images)
        vae.score(images, num_samples=2, seed=7, first_row=1)
        for name in HEALTH_NAMES:
            vae.health(name)
        with contextlib.suppress(convvae.ConvvaeError):
            vae.encode(images, model="nobody")
        with contextlib.suppress(convvae.ConvvaeError):
            vae.encode(images, model=f"{NAME}@9")
        with contextlib.suppress(convvae.ConvvaeError):
            vae.encode([files[0], b"no image"])


def call_vae(channel: grpc.Channel) -> None:
    """Call by the stubs, with requests that the client refuses itself."""
    stub = vae_pb2_grpc.VaeServiceStub(channel)
    wrong_size = vae_pb2.Pixels(data=bytes(5 * 5), count=1, height=5, width=5, channels=1)
    not_a_number = np.full((1, LATENT_DIM), np.nan, "<f4").tobytes()
    vectors = vae_pb2.Vectors(data=not_a_number, count=1, dimension=LATENT_DIM)
    refused: tuple[tuple[Any, Any], ...] = (
        (stub.Encode, vae_pb2.EncodeRequest(pixels=wrong_size)),
        (stub.Encode, vae_pb2.EncodeRequest()),
        (stub.Decode, vae_pb2.DecodeRequest(latents=vectors)),
        (stub.Sample, vae_pb2.SampleRequest(count=-1)),
    )
    for method, request in refused:
        with contextlib.suppress(grpc.RpcError):
            method(request, timeout=TIMEOUT_S)


def infer_requests() -> list[pb.ModelInferRequest]:
    """Return requests with raw and with typed contents, to both graphs, and one that is refused."""
    images = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 1), np.uint8)
    latents = np.random.default_rng(1).normal(size=(2, LATENT_DIM)).astype("<f4")
    requests = []
    for graph, name, datatype, values in (
        ("encoder", "image", "UINT8", images),
        ("decoder", "latent", "FP32", latents),
    ):
        raw = pb.ModelInferRequest(model_name=f"{NAME}.{graph}", id=f"raw-{graph}")
        raw.inputs.add(name=name, datatype=datatype, shape=values.shape)
        raw.raw_input_contents.append(values.tobytes())
        typed = pb.ModelInferRequest(model_name=f"{NAME}.{graph}", id=f"typed-{graph}")
        tensor = typed.inputs.add(name=name, datatype=datatype, shape=values.shape)
        if graph == "encoder":
            tensor.contents.uint_contents.extend(values.ravel().tolist())
            typed.outputs.add(name="mean")
        else:
            tensor.contents.fp32_contents.extend(values.ravel().tolist())
        requests += [raw, typed]
    return [*requests, pb.ModelInferRequest(model_name="nobody", id="refused")]


def call_inference(channel: grpc.Channel) -> None:
    """Call every method of the Open Inference Protocol."""
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    stub.ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT_S)
    stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT_S)
    stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=TIMEOUT_S)
    stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_S)
    for graph in ("encoder", "decoder"):
        name = f"{NAME}.{graph}"
        stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=TIMEOUT_S)
        stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=TIMEOUT_S)
        stub.ModelConfig(pb.ModelConfigRequest(name=name), timeout=TIMEOUT_S)
        stub.ModelStatistics(pb.ModelStatisticsRequest(name=name), timeout=TIMEOUT_S)
    requests = infer_requests()
    for request in requests:
        with contextlib.suppress(grpc.RpcError):
            stub.ModelInfer(request, timeout=TIMEOUT_S)
    list(stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT_S))


def call_health(channel: grpc.Channel) -> None:
    """Ask for the health of each name, and watch until the first answer."""
    stub = health_pb2_grpc.HealthStub(channel)
    for name in HEALTH_NAMES:
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
        next(watch)
        watch.cancel()
    with contextlib.suppress(grpc.RpcError):
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=TIMEOUT_S)


def main(target: str) -> None:
    """Call the server."""
    call_client(target)
    with grpc.insecure_channel(target) as channel:
        call_vae(channel)
        call_inference(channel)
        call_health(channel)


if __name__ == "__main__":
    main(sys.argv[1])
