"""Reply messages parsed to arrays and records. A reply that contradicts the contract raises `BadReply`."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae.errors import BadReply
from convvae.results import Likelihood, Limits, ModelInfo, ModelSummary, VersionSummary
from convvae.v1 import vae_pb2

__all__ = [
    "Served",
    "read_model_info",
    "read_models",
    "read_pixels",
    "read_served",
    "read_values",
    "read_vectors",
]


class Served(NamedTuple):
    """The model version that answered."""

    model: str
    version: int
    precision: str

    def __str__(self) -> str:
        return f"{self.model}@{self.version} ({self.precision})"


def read_served(message: vae_pb2.ServedModel) -> Served:
    """Return the model version that answered."""
    return Served(message.name, message.version, message.precision)


def read_vectors(message: vae_pb2.Vectors, *, rows: int, dimension: int) -> NDArray[np.float32]:
    """Return a read-only view, float32 (rows, dimension), of the message's bytes."""
    if (message.count, message.dimension) != (rows, dimension):
        raise BadReply(
            f"the reply has {message.count} vectors of {message.dimension} values, not {rows} of {dimension}"
        )
    data = message.data
    if len(data) != rows * dimension * 4:
        raise BadReply(f"the reply has {len(data)} bytes of vectors, not {rows * dimension * 4}")
    return np.frombuffer(data, "<f4").reshape(rows, dimension)


def read_values(values: Sequence[float], name: str, *, rows: int) -> NDArray[np.float32]:
    """Return one number per row as float32 (rows,)."""
    if len(values) != rows:
        raise BadReply(f"the reply has {len(values)} values of {name}, not {rows}")
    return np.array(values, np.float32)


def read_pixels(
    message: vae_pb2.Pixels, *, rows: int, image_shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return a read-only view, uint8 (rows, height, width, channels), of the message's bytes."""
    shape = (message.count, message.height, message.width, message.channels)
    expected = (rows, *image_shape)
    if shape != expected:
        raise BadReply(f"the reply has images of shape {shape}, not {expected}")
    data = message.data
    if len(data) != math.prod(expected):
        raise BadReply(f"the reply has {len(data)} bytes of pixels, not {math.prod(expected)}")
    return np.frombuffer(data, np.uint8).reshape(expected)


def read_model_info(reply: vae_pb2.GetModelResponse) -> ModelInfo:
    """Return the description of a model."""
    served = read_served(reply.model)
    if min(reply.height, reply.width, reply.channels, reply.latent_dim, served.version) < 1:
        raise BadReply(f"the description of model {served} lacks its version, image size or latent size")
    likelihood = reply.likelihood
    return ModelInfo(
        model=served.model,
        version=served.version,
        precision=served.precision,
        objective=reply.objective,
        likelihood=Likelihood(
            name=likelihood.name,
            probability_clamp=likelihood.probability_clamp
            if likelihood.HasField("probability_clamp")
            else None,
            sigma=likelihood.sigma if likelihood.HasField("sigma") else None,
            scale=likelihood.scale if likelihood.HasField("scale") else None,
        ),
        height=reply.height,
        width=reply.width,
        channels=reply.channels,
        latent_dim=reply.latent_dim,
        capabilities=tuple(reply.capabilities),
        precisions=tuple(reply.precisions),
        limits=Limits(
            max_rows_per_call=reply.limits.max_rows_per_call,
            max_message_bytes=reply.limits.max_message_bytes,
            max_pixels_per_file=reply.limits.max_pixels_per_file,
            max_queued_rows=reply.limits.max_queued_rows,
            max_pending_bytes=reply.limits.max_pending_bytes,
        ),
        manifest_json=reply.manifest_json,
    )


def read_models(reply: vae_pb2.ListModelsResponse) -> tuple[ModelSummary, ...]:
    """Return the server's models."""
    return tuple(
        ModelSummary(
            name=model.name,
            versions=tuple(
                VersionSummary(
                    version=version.version,
                    state=_state(version.state),
                    is_default=version.is_default,
                    error=version.error,
                )
                for version in model.versions
            ),
        )
        for model in reply.models
    )


def _state(value: int) -> str:
    # A newer server may have states that this client does not know.
    known = vae_pb2.VersionState.DESCRIPTOR.values_by_number.get(value)
    return known.name.removeprefix("VERSION_STATE_").lower() if known else f"state_{value}"
