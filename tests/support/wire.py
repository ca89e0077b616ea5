"""Calls of the wire as another language's client would make them: stubs and nothing else."""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from numpy.typing import NDArray
from PIL import Image

from convvae.v1 import vae_pb2, vae_pb2_grpc

TIMEOUT_S = 20.0


@contextmanager
def stub_of(target: str) -> Iterator[vae_pb2_grpc.VaeServiceStub]:
    """A stub on a connection of its own, which takes messages of any size."""
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(target, options=options) as channel:
        yield vae_pb2_grpc.VaeServiceStub(channel)


def pixels(images: NDArray[np.uint8], **changes: Any) -> vae_pb2.Pixels:
    """Pack images (B, H, W, C), with fields changed."""
    count, height, width, channels = images.shape
    fields = {
        "data": images.tobytes(),
        "count": count,
        "height": height,
        "width": width,
        "channels": channels,
    }
    return vae_pb2.Pixels(**{**fields, **changes})


def vectors(rows: NDArray[np.float32], **changes: Any) -> vae_pb2.Vectors:
    """Pack vectors (B, Z), with fields changed."""
    fields = {"data": rows.astype("<f4").tobytes(), "count": rows.shape[0], "dimension": rows.shape[1]}
    return vae_pb2.Vectors(**{**fields, **changes})


def unpack(message: vae_pb2.Vectors) -> NDArray[np.float32]:
    """Return vectors as an array (B, Z)."""
    return np.frombuffer(message.data, "<f4").reshape(message.count, message.dimension)


def unpack_pixels(message: vae_pb2.Pixels) -> NDArray[np.uint8]:
    """Return images as an array (B, H, W, C)."""
    shape = (message.count, message.height, message.width, message.channels)
    return np.frombuffer(message.data, np.uint8).reshape(shape)


def random_images(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return random pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    """Return an image (H, W, C) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def png_bomb(side: int = 60_000) -> bytes:
    """Return a sound PNG header of `side` x `side` pixels over the data of a small image."""
    data = bytearray(png(np.zeros((8, 8, 1), np.uint8)))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


class Refusal:
    """The error that a call ended with."""

    def __init__(self, error: BaseException | None) -> None:
        assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
        self.code: grpc.StatusCode = error.code()
        self.message: str = error.details() or ""
        self.metadata: dict[str, Any] = dict(iter(error.trailing_metadata() or ()))
        status = status_pb2.Status.FromString(self.metadata.get("grpc-status-details-bin", b""))
        self.violations: dict[str, str] = {}
        self.reason: str = ""
        self.retry_delay_s: float | None = None
        for detail in status.details:
            if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest.FromString(detail.value)
                self.violations = {v.field: v.description for v in bad.field_violations}
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                self.retry_delay_s = delay.seconds + delay.nanos / 1e9
            elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                self.reason = error_details_pb2.ErrorInfo.FromString(detail.value).reason


def refused(call: Any, request: Any, **options: Any) -> Refusal:
    """Make a call that must fail, and return how it did."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=options.pop("timeout", TIMEOUT_S), **options)
    return Refusal(caught.value)
