"""Requests of the Open Inference Protocol to `tiny`, with stubs and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from open_inference import inference_pb2 as pb
from open_inference import inference_pb2_grpc
from support.tiny_bundle import LATENT_DIM, SHAPE
from support.wire import random_images

Stub = inference_pb2_grpc.GRPCInferenceServiceStub
IMAGES = random_images(3, *SHAPE.as_tuple)
LATENTS = np.random.default_rng(0).normal(size=(2, LATENT_DIM)).astype(np.float32)


@contextmanager
def inference_stub(target: str) -> Iterator[Stub]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(target, options=options) as channel:
        yield Stub(channel)


def encode_request(images: NDArray[np.uint8] = IMAGES, **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tiny.encoder", raw_input_contents=[images.tobytes()], **fields)
    request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
    return request


def decode_request(latents: NDArray[np.float32] = LATENTS, **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(
        model_name="tiny.decoder", raw_input_contents=[latents.astype("<f4").tobytes()], **fields
    )
    request.inputs.add(name="latent", datatype="FP32", shape=latents.shape)
    return request


def outputs(reply: pb.ModelInferResponse) -> dict[str, NDArray[Any]]:
    """Return a reply's outputs by name; each has its raw values and no typed ones."""
    assert len(reply.outputs) == len(reply.raw_output_contents)
    assert not any(tensor.HasField("contents") for tensor in reply.outputs)
    dtypes: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
    return {
        tensor.name: np.frombuffer(raw, dtypes[tensor.datatype]).reshape(tensor.shape)
        for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }
