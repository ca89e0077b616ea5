"""The effect of each term of the ELBO on a two-dimensional latent space, in three small models.

N = images, Z = 2 latent dimensions.
"""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape
from convvae_trainer.compare.small_images import small_images
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.selection import drawn
from convvae_trainer.errors import Interrupted
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config

__all__ = ["TERM_NAMES", "LatentScatter", "default_epochs", "train_scatters"]

TrainedTerms = Literal["distortion", "rate", "both"]
TERM_NAMES: dict[TrainedTerms, str] = {
    "distortion": "reconstruction term alone",
    "rate": "KL term alone",
    "both": "both terms",
}
MAX_IMAGES = 10_000
MAX_POINTS = 3_000
BATCH = 128
# After this many steps the three scatters change little. Training all three on `digits` at 16x16 took 26 s on
# a busy core.
STEPS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentScatter:
    """The posterior of a model with two latent dimensions: draws of shape (N, 2), and figures.

    There is one draw for each of some training images. For the same images, `spread` is the root mean square
    distance of the posterior means from their centre. `deviation` is the mean standard deviation of the
    posterior. `separation` is the share of the means' variance that lies between classes, 0 to 1; it is None
    without labels. `rate` and `distortion` are means over the test images, in nats per image.
    """

    terms: TrainedTerms
    seed: int
    likelihood: str
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
        """Return the figures, without the draws."""
        names = ("terms", "seed", "likelihood", "spread", "deviation", "rate", "distortion", "separation")
        sizes = {"train_images": self.train_images, "test_images": self.test_images}
        return {**{name: getattr(self, name) for name in names}, **sizes, "image": list(self.image.as_tuple)}


def default_epochs(num_images: int) -> int:
    """Return the number of epochs that is closest to `STEPS` steps."""
    num_images = min(num_images, MAX_IMAGES)
    return max(1, round(STEPS * min(BATCH, num_images) / num_images))


def train_scatters(
    dataset: Dataset,
    *,
    likelihood: str = "bernoulli",
    epochs: int | None = None,
    seeds: Sequence[int] = (0,),
    announce: Callable[[TrainedTerms], object] = str,
) -> list[LatentScatter]:
    """Train a model on the reconstruction term alone, one on the KL term alone, and one on both, per seed.

    Args:
        dataset: The data set. At most `MAX_IMAGES` training images are used, reduced to 32 pixels a side.
        likelihood: The likelihood of the pixels in all models.
        epochs: Epochs of each training. None: `default_epochs`.
        seeds: Each of the three is trained once with each of these seeds of weights, order and noise.
        announce: Called with the terms before each training.
    """
    small = _reduced(dataset)
    scatters = []
    for seed, terms in itertools.product(seeds, TERM_NAMES):
        announce(terms)
        settings = {
            "dataset": dataset.name,
            "objective": "vae",
            "likelihood": likelihood,
            "terms": terms,
            "latent_dim": 2,
            "width": 16,
            "hidden": 128,
            "epochs": epochs or default_epochs(len(small.train)),
            "batch_size": BATCH,
            "ema_decay": 0.99,
            "seed": seed,
            "device": "cpu",
            "precision": "fp32",
            "tensorboard": False,
        }
        config = config_from(settings)
        scatters.append(_scatter(terms, _fit(config, small), small, seed=seed))
    return scatters


def _fit(config: Config, dataset: Dataset) -> Fitted:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return fit(config, dataset, Path(folder) / "run")
        except Interrupted as stopped:
            # The message names a checkpoint in the temporary folder, which is gone: end without it.
            raise SystemExit(stopped.exit_code) from None


def _scatter(terms: TrainedTerms, fitted: Fitted, dataset: Dataset, *, seed: int) -> LatentScatter:
    rows = drawn(len(dataset.train), MAX_POINTS)
    labels_N = None if dataset.train_labels is None else dataset.train_labels[rows]
    x_NCHW = torch.from_numpy(dataset.train[rows]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad(), fitted.train_state.ema.swapped_in():
        mean_NZ, log_variance_NZ = fitted.train_state.model.encoder(x_NCHW)
    deviation_NZ = (0.5 * log_variance_NZ).exp()
    noise_NZ = torch.randn(mean_NZ.shape, generator=torch.Generator().manual_seed(seed))
    mean = mean_NZ.double().numpy()
    bound = fitted.evaluation.bound
    assert bound.rate is not None
    return LatentScatter(
        terms=terms,
        seed=seed,
        likelihood=fitted.train_state.config.likelihood,
        draws=(mean_NZ + noise_NZ * deviation_NZ).numpy(),
        labels=labels_N,
        spread=float(np.sqrt(mean.var(axis=0).sum())),
        deviation=deviation_NZ.double().mean().item(),
        rate=bound.rate,
        distortion=bound.distortion,
        separation=None if labels_N is None else separation(mean, labels_N),
        train_images=len(dataset.train),
        test_images=fitted.evaluation.images,
        image=dataset.image,
    )


def separation(points_NZ: NDArray[np.float64], labels_N: NDArray[np.int64]) -> float | None:
    """Return the share of the points' variance that lies between classes; None if there is no variance."""
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
    """Return a small data set: fewer images, reduced in size."""
    labels = dataset.train_labels
    train, test = drawn(len(dataset.train), MAX_IMAGES), drawn(len(dataset.test), MAX_POINTS)
    return Dataset(
        name=dataset.name,
        split=dataset.split,
        train=small_images(dataset.train[train]),
        test=small_images(dataset.test[test]),
        train_labels=None if labels is None else labels[train],
    )
