"""Models of a comparison whose reconstructions are given, so that a test decides what they look like."""

import hashlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape
from convvae_trainer.compare.model_report import ModelReport, measure
from convvae_trainer.compare.nearest import NearestImages
from convvae_trainer.compare.own_size import own_halvings
from convvae_trainer.compare.sample import TestSample as Sample
from convvae_trainer.compare.sample import mean_image_ssim
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.recorded import recorded_settings

LATENTS = 4


def manifest_of(
    objective: str,
    *,
    seed: int = 0,
    weights: str = "",
    settings: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Any:
    """Return what a comparison reads of a manifest.

    Args:
        objective: The objective; all other settings are its defaults with a Gaussian likelihood.
        seed: The seed of the training.
        weights: Equal texts are equal weights. "": they follow from everything else.
        settings: Settings of the training that differ.
        facts: `steps`, `epochs`, `images`, `data` (the hash), `share_done`, `weights_from`, `ends`;
            `settings_recorded` False for a bundle that does not record its settings.
    """
    given = {"dataset": "d", "objective": objective, "likelihood": "gaussian", "latent_dim": LATENTS}
    recorded = recorded_settings(config_from(given, settings or {}))
    values = {"steps": 100, "epochs": 5.0, "images": 80, "data": "sha", "settings_recorded": True} | facts
    metrics: dict[str, Any] = {"training_precision": "fp32"}
    if values["settings_recorded"]:
        metrics |= {
            "training_steps": values["steps"],
            "training_settings": recorded,
            "training_data_sha256": values["data"],
        }
    metrics |= {
        f"training_{name}": values[name] for name in ("share_done", "weights_from", "ends") if name in values
    }
    digest = hashlib.sha256((weights or f"{objective} {seed} {settings} {facts}").encode()).hexdigest()
    return SimpleNamespace(
        model=objective,
        objective=objective,
        likelihood=SimpleNamespace(name=recorded["likelihood"]),
        latent_dim=recorded["latent_dim"],
        has_log_variance=objective != "ae",
        graphs=(SimpleNamespace(sha256=digest),),
        training=SimpleNamespace(
            dataset="d", images=values["images"], epochs=values["epochs"], seed=seed, metrics=metrics
        ),
    )


class GivenModel:
    """A model whose first latent is the row of a test image; it decodes to the reconstruction of that row."""

    def __init__(
        self, label: str, manifest: Any, images: NDArray[np.uint8], reconstructions: NDArray[np.uint8]
    ) -> None:
        height, width, channels = images.shape[1:]
        manifest.image = ImageShape(height=height, width=width, channels=channels)
        self.manifest = manifest
        self.published = SimpleNamespace(label=label, version=1, precision="fp32", manifest=manifest)
        self._reconstructions = reconstructions

    def encode(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return the row of each image as its mean; an `ae` has no log-variance."""
        mean = np.zeros((len(images), self.manifest.latent_dim), np.float32)
        mean[:, 0] = np.arange(len(images))
        return mean, None if self.manifest.objective == "ae" else np.full_like(mean, -4)

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the reconstructions of the rows that the latents name."""
        rows = np.clip(np.rint(latents[:, 0]), 0, len(self._reconstructions) - 1)
        found: NDArray[np.uint8] = self._reconstructions[rows.astype(int)]
        return found

    def distortion(self, images: NDArray[np.uint8], latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a distortion for each image, whatever its latents."""
        del latents
        return np.ones(len(images), np.float32)

    def loss_curves(self) -> list[dict[str, Any]]:
        """Return the epochs of a training that goes well."""
        return [{"epoch": number, "elbo": -10.0 / number, "skipped_steps": 0} for number in (1, 2, 3)]


def measured(
    manifest: Any, images: NDArray[np.uint8], reconstructions: NDArray[np.uint8], *, label: str = ""
) -> ModelReport:
    """Return the report of a model with these reconstructions of the images."""
    model: Any = GivenModel(
        label or f"{manifest.objective}-{manifest.training.seed}", manifest, images, reconstructions
    )
    sample = Sample(
        rows=np.arange(len(images)),
        images=images,
        labels=None,
        shown=np.arange(2),
        mean_image_ssim=mean_image_ssim(images),
        halvings=own_halvings(images),
    )
    return measure(model, sample, classifier=None, nearest=NearestImages(images, images), is_shown=False)
