"""What either term of the bound does to a plane of latents: three small 2-D models, trained on the spot.

N = images, Z = 2 latent dimensions.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import fit_pixels
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.selection import drawn
from convvae_trainer.errors import Interrupted
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.config import Config

__all__ = ["LatentScatter", "default_epochs", "train_planes"]

Kind = Literal["distortion", "rate", "both"]
KINDS: tuple[Kind, ...] = ("distortion", "rate", "both")
MAX_IMAGES = 10_000
MAX_POINTS = 3_000
MAX_SIDE = 32
BATCH = 128
# By then the three pictures change little: of `digits` at 16x16 in 26 s altogether, on a busy core.
STEPS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentScatter:
    """A 2-D model's posterior: one draw for each of some training images, and figures.

    Of the same images `spread` is the root mean square distance of the posterior means from their centre,
    `deviation` the mean standard deviation of the posterior, and `separation` the share of the means'
    variance that lies between classes, 0 to 1, None without labels. `rate` and `distortion`, in nats per
    image, are of `test_images` test images. The model was trained on `train_images` images of shape `image`.
    """

    terms: Kind
    draws: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    spread: float
    deviation: float
    rate: float
    distortion: float
    separation: float | None
    train_images: int
    test_images: int
    image: ImageShape

    def to_json_object(self) -> dict[str, Any]:
        """Return the figures, without the points."""
        names = ("terms", "spread", "deviation", "rate", "distortion", "separation")
        sizes = {"train_images": self.train_images, "test_images": self.test_images}
        return {**{name: getattr(self, name) for name in names}, **sizes, "image": list(self.image.as_tuple)}


def default_epochs(num_images: int) -> int:
    """Return the epochs in which `STEPS` batches are seen."""
    num_images = min(num_images, MAX_IMAGES)
    return max(1, round(STEPS * min(BATCH, num_images) / num_images))


def train_planes(
    dataset: Dataset,
    *,
    epochs: int | None = None,
    seed: int = 0,
    announce: Callable[[Kind], object] = str,
) -> list[LatentScatter]:
    """Train on the reconstruction term alone, on the rate alone, and on both.

    Args:
        dataset: Of which `MAX_IMAGES` training images at most are used, of at most 32 pixels a side.
        epochs: Of each training. None: `default_epochs`.
        seed: Of weights, order and noise.
        announce: Is told what is trained next.
    """
    small = _reduced(dataset)
    planes = []
    for kind in KINDS:
        announce(kind)
        config = Config(
            dataset=dataset.name,
            objective="vae",
            likelihood="bernoulli",
            terms=kind,
            latent_dim=2,
            width=16,
            hidden=128,
            epochs=epochs or default_epochs(len(small.train)),
            batch_size=BATCH,
            ema_decay=0.99,
            seed=seed,
            device="cpu",
            precision="fp32",
            tensorboard=False,
        )
        planes.append(_plane(kind, config, small))
    return planes


def _plane(kind: Kind, config: Config, dataset: Dataset) -> LatentScatter:
    with tempfile.TemporaryDirectory() as folder:
        try:
            fitted = fit(config, dataset, Path(folder) / "run")
        except Interrupted as stopped:
            # The folder with the checkpoint that the message speaks of is gone.
            raise SystemExit(stopped.exit_code) from None
    train_state = fitted.train_state
    assert fitted.evaluation.rate is not None
    rows = drawn(len(dataset.train), MAX_POINTS)
    labels_N = None if dataset.train_labels is None else dataset.train_labels[rows]
    x_NCHW = torch.from_numpy(dataset.train[rows]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad(), train_state.ema.swapped_in():
        mean_NZ, log_variance_NZ = train_state.model.encoder(x_NCHW)
    deviation_NZ = (0.5 * log_variance_NZ).exp()
    noise_NZ = torch.randn(mean_NZ.shape, generator=torch.Generator().manual_seed(config.seed))
    mean = mean_NZ.double().numpy()
    return LatentScatter(
        terms=kind,
        draws=(mean_NZ + noise_NZ * deviation_NZ).numpy(),
        labels=labels_N,
        spread=float(np.sqrt(mean.var(axis=0).sum())),
        deviation=deviation_NZ.double().mean().item(),
        rate=fitted.evaluation.rate,
        distortion=fitted.evaluation.distortion,
        separation=None if labels_N is None else separation(mean, labels_N),
        train_images=len(dataset.train),
        test_images=fitted.evaluation.images,
        image=dataset.image,
    )


def separation(points_NZ: NDArray[np.float64], labels_N: NDArray[np.int64]) -> float | None:
    """Return the share of the points' variance that lies between classes; None where there is no variance."""
    total = points_NZ.var(axis=0).sum()
    if total <= 0:
        return None
    centre_Z = points_NZ.mean(axis=0)
    between = 0.0
    for label in np.unique(labels_N):
        rows = points_NZ[labels_N == label]
        between += len(rows) / len(points_NZ) * np.square(rows.mean(axis=0) - centre_Z).sum()
    return float(between / total)


def _reduced(dataset: Dataset) -> Dataset:
    """Return some training images and as many test images as points, small ones."""
    labels = dataset.train_labels
    train, test = drawn(len(dataset.train), MAX_IMAGES), drawn(len(dataset.test), MAX_POINTS)
    return Dataset(
        name=dataset.name,
        split=dataset.split,
        train=_small(dataset.train[train]),
        test=_small(dataset.test[test]),
        train_labels=None if labels is None else labels[train],
    )


def _small(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width, channels = images_NHWC.shape[1:]
    if max(height, width) <= MAX_SIDE:
        return np.ascontiguousarray(images_NHWC)
    # Whatever the sides, neither may fall below what networks take.
    sides = [max(8, round(side * MAX_SIDE / max(height, width))) for side in (height, width)]
    shape = ImageShape(height=sides[0], width=sides[1], channels=channels)
    resize = Resize(mode="stretch", filter="box", library="")
    return np.stack([fit_pixels(image, shape=shape, resize=resize) for image in images_NHWC])
