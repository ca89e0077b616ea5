"""Arrays and models as messages of `convvae.v1`."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from convvae.v1 import vae_pb2
from convvae_service.api.limits import CallLimits
from convvae_service.repository.entry import ModelEntry
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.settings.serve import ServeSettings

__all__ = ["describe_model", "list_models", "pixels", "served_model", "vectors"]

_LITTLE_FLOAT32 = np.dtype("<f4")


def served_model(served: LoadedVersion) -> vae_pb2.ServedModel:
    """Return the name of the version that answered."""
    return vae_pb2.ServedModel(name=served.name, version=served.version, precision=served.engine.precision)


def pixels(images: NDArray[np.uint8]) -> vae_pb2.Pixels:
    """Return images, uint8 (B, H, W, C), as a message."""
    count, height, width, channels = images.shape
    return vae_pb2.Pixels(data=images.tobytes(), count=count, height=height, width=width, channels=channels)


def vectors(rows: NDArray[np.float32]) -> vae_pb2.Vectors:
    """Return vectors, float32 (B, Z), as a message."""
    count, dimension = rows.shape
    return vae_pb2.Vectors(
        data=rows.astype(_LITTLE_FLOAT32, copy=False).tobytes(), count=count, dimension=dimension
    )


def list_models(models: Mapping[str, ModelEntry]) -> vae_pb2.ListModelsResponse:
    """Return the models and their versions, with the state of each."""
    return vae_pb2.ListModelsResponse(
        models=[
            vae_pb2.ModelSummary(
                name=name,
                versions=[
                    vae_pb2.VersionSummary(
                        version=number,
                        state=vae_pb2.VersionState.Value(f"VERSION_STATE_{version.state.name}"),
                        is_default=number == entry.default,
                        error=version.error,
                    )
                    for number, version in sorted(entry.versions.items())
                ],
            )
            for name, entry in models.items()
        ]
    )


def describe_model(
    served: LoadedVersion, *, settings: ServeSettings, limits: CallLimits
) -> vae_pb2.GetModelResponse:
    """Return the description of a version, with the limits on calls to it."""
    manifest = served.manifest
    return vae_pb2.GetModelResponse(
        model=served_model(served),
        objective=manifest.objective,
        likelihood=vae_pb2.Likelihood(
            name=manifest.likelihood.name,
            probability_clamp=manifest.likelihood.probability_clamp,
            sigma=manifest.likelihood.sigma,
            scale=manifest.likelihood.scale,
        ),
        height=manifest.image.height,
        width=manifest.image.width,
        channels=manifest.image.channels,
        latent_dim=manifest.latent_dim,
        capabilities=manifest.capabilities,
        precisions=manifest.precisions,
        limits=vae_pb2.Limits(
            max_rows_per_call=limits.max_rows,
            max_message_bytes=limits.max_message_bytes,
            max_pixels_per_file=limits.max_pixels_per_file,
            max_queued_rows=settings.max_queued_rows,
            max_pending_bytes=settings.max_pending_bytes,
        ),
        manifest_json=served.manifest_json,
    )
