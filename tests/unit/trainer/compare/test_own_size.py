"""The size at which images have edges of their own."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_trainer.compare.own_size import own_halvings, sized_sharpness
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.evaluation.image_quality import reconstruction_quality
from convvae_trainer.settings.config import Config


def noise(side: int) -> NDArray[np.uint8]:
    """Return 30 images of independent pixels."""
    return np.random.default_rng(0).integers(0, 256, (30, side, side, 1), dtype=np.uint8)


def enlarged(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the images, enlarged smoothly to this side."""
    large = [
        np.asarray(Image.fromarray(x[..., 0]).resize((side, side), Image.Resampling.BICUBIC)) for x in images
    ]
    return np.stack(large)[..., None]


@pytest.mark.parametrize(("side", "halvings"), [(16, 0), (32, 1), (64, 2)])
def test_enlarged_images_are_halved_to_the_size_that_they_had(side: int, halvings: int) -> None:
    """Pixels of 16x16 images that are enlarged twofold are found after one halving."""
    assert own_halvings(enlarged(noise(16), side)) == halvings


@pytest.mark.parametrize(("size", "halvings"), [((32, 32), 2), ((16, 16), 1), ((8, 8), 0)])
def test_digits_have_8x8_pixels_of_their_own(size: tuple[int, int], halvings: int) -> None:
    """The data set enlarges them to whatever size is asked for."""
    images = load_dataset(Config(dataset="digits", image_size=size)).test
    assert own_halvings(images) == halvings


def test_small_and_blank_images_keep_their_size() -> None:
    """Neither has a smaller size that would say more."""
    assert own_halvings(enlarged(noise(4), 15)) == 0
    assert own_halvings(np.full((3, 64, 64, 3), 7, np.uint8)) == 0


def test_the_quality_is_that_of_the_halved_images() -> None:
    """At the own size and at half of it; noise of the reconstructions at full size is told."""
    images, rebuilt = enlarged(noise(16), 32), enlarged(noise(16) // 2, 32)
    found = sized_sharpness(images, rebuilt, 1, reconstruction_quality(images, rebuilt))
    assert (found.height, found.width, found.is_noisy) == (16, 16, False)
    blocks = [x.reshape(30, 16, 2, 16, 2, 1).mean((2, 4)) for x in (images, rebuilt)]
    error = ((blocks[0] - blocks[1]) ** 2).mean() / 255**2
    assert found.own_size.mse == pytest.approx(error, rel=0.02)
    assert found.half_size.input_sharpness > 0
    noisy = np.clip(images + np.random.default_rng(1).normal(0, 40, images.shape), 0, 255).astype(np.uint8)
    assert sized_sharpness(images, noisy, 1, reconstruction_quality(images, noisy)).is_noisy
