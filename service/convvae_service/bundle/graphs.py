"""The graphs of a bundle: role, precision, file, checksum, and the tensors that each must have."""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

from convvae_service.bundle.errors import BundleError
from convvae_service.bundle.names import check_file_name, check_sha256
from convvae_service.bundle.records import ImageShape

__all__ = [
    "PRECISIONS",
    "ROLES",
    "Graph",
    "Precision",
    "Role",
    "TensorSpec",
    "describe_graph",
    "expected_tensors",
]

Role = Literal["encoder", "decoder"]
Precision = Literal["fp32", "fp16", "int8"]
ROLES: tuple[Role, ...] = get_args(Role)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# Protobuf reads no larger message.
_MAX_ONNX_BYTES = 1 << 31


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """An input or output of a graph. An axis of any size has a name instead of a number in `shape`."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """One ONNX file of the bundle. `sha256` detects damage; it does not prove who made the file."""

    role: Role
    precision: Precision
    file: str
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int

    def __post_init__(self) -> None:
        check_file_name(self.file, "graph file")
        if not 1 <= self.bytes < _MAX_ONNX_BYTES:
            raise BundleError(
                f"the manifest states {self.bytes} bytes for {self.file}: it must be 1 to"
                f" {_MAX_ONNX_BYTES - 1}"
            )
        check_sha256(self.sha256, self.file)


def expected_tensors(
    role: Role, *, image: ImageShape, latent_dim: int, has_log_variance: bool
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the (inputs, outputs) that a graph of this role must have.

    `has_log_variance`: whether the encoder returns a log-variance beside the mean.
    """
    latent = ("batch", latent_dim)
    pixels = ("batch", *image.as_tuple)
    if role == "encoder":
        mean = TensorSpec(name="mean", dtype="float32", shape=latent)
        log_variance = TensorSpec(name="log_variance", dtype="float32", shape=latent)
        outputs = (mean, log_variance) if has_log_variance else (mean,)
        return (TensorSpec(name="image", dtype="uint8", shape=pixels),), outputs
    return (
        (TensorSpec(name="latent", dtype="float32", shape=latent),),
        (
            TensorSpec(name="image", dtype="uint8", shape=pixels),
            TensorSpec(name="pixel_mean", dtype="float32", shape=pixels),
        ),
    )


def describe_graph(
    data: bytes,
    *,
    role: Role,
    precision: Precision,
    opset: int,
    image: ImageShape,
    latent_dim: int,
    has_log_variance: bool,
) -> Graph:
    """Return the manifest's entry for the ONNX bytes `data`.

    The file is named `<role>.onnx` for fp32 and `<role>.<precision>.onnx` for the others.
    """
    inputs, outputs = expected_tensors(
        role, image=image, latent_dim=latent_dim, has_log_variance=has_log_variance
    )
    return Graph(
        role=role,
        precision=precision,
        file=f"{role}.onnx" if precision == "fp32" else f"{role}.{precision}.onnx",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        inputs=inputs,
        outputs=outputs,
        opset=opset,
    )
