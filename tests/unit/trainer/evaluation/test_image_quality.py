"""How near images are to others, and how sharp: against closed forms and sums by hand."""

import math

import numpy as np
import pytest
import torch

from convvae_trainer.evaluation import image_quality
from convvae_trainer.evaluation.image_quality import (
    MAX_PSNR_DB,
    mse,
    psnr,
    reconstruction_quality,
    sharpness,
    ssim,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))


def test_psnr_of_a_shift_is_its_square() -> None:
    """A shift by 0.1 everywhere is 20 dB; equal images have the largest value there is."""
    x = noise(3, 3, 8, 9) * 0.5
    np.testing.assert_allclose(psnr(mse(x, x + 0.1)), 20.0, atol=1e-4)
    np.testing.assert_array_equal(psnr(mse(x, x)), MAX_PSNR_DB)


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    """Without variance only means count: (2ab + c1) / (a^2 + b^2 + c1)."""
    a, b = 0.2, 0.7
    found = ssim(torch.full((2, 1, 20, 13), a), torch.full((2, 1, 20, 13), b))
    np.testing.assert_allclose(found, (2 * a * b + 1e-4) / (a * a + b * b + 1e-4), rtol=1e-4)


def ssim_by_hand(x: np.ndarray, y: np.ndarray, side: int) -> float:
    """Return the mean over places of the formula in Wang et al. 2004, written out for one channel."""
    offsets = np.arange(side) - side // 2
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for top in range(x.shape[0] - side + 1):
        for left in range(x.shape[1] - side + 1):
            a, b = x[top : top + side, left : left + side], y[top : top + side, left : left + side]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            found.append(
                (2 * mean_a * mean_b + 0.01**2)
                * (2 * covariance + 0.03**2)
                / ((mean_a**2 + mean_b**2 + 0.01**2) * (variance_a + variance_b + 0.03**2))
            )
    return float(np.mean(found))


@pytest.mark.parametrize(("shape", "side"), [((14, 12), 11), ((11, 30), 11), ((10, 16), 9), ((8, 8), 7)])
def test_ssim_is_the_mean_over_windows_and_channels(shape: tuple[int, int], side: int) -> None:
    """The window is 11x11, or the largest odd one that fits; channels are averaged."""
    x, y = noise(2, 3, *shape), noise(2, 3, *shape, seed=1) * 0.5 + 0.2
    expected = [
        np.mean([ssim_by_hand(x[row, c].numpy(), y[row, c].numpy(), side) for c in range(3)])
        for row in range(2)
    ]
    np.testing.assert_allclose(ssim(x, y), expected, atol=1e-5)
    np.testing.assert_allclose(ssim(x, x), 1.0, atol=1e-5)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    """One bright pixel on black has a known sharpness; a ramp has none; noise has more than its blur."""
    image = torch.zeros(1, 1, 12, 12)
    image[0, 0, 5, 5] = 1.0
    # 100 places inside: one of -4 and four of 1, whose mean is 0.
    assert sharpness(image).item() == pytest.approx((16 + 4) / 100)
    ramp = torch.linspace(0, 1, 12).expand(1, 1, 9, 12)
    assert sharpness(ramp).item() == pytest.approx(0.0, abs=1e-10)
    rough = noise(1, 3, 20, 20)
    assert sharpness(rough).item() > 5 * sharpness((rough + rough.roll(1, 2) + rough.roll(1, 3)) / 3).item()


def test_quality_is_the_mean_over_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batches, bytes or floats: means of the figures of each pair."""
    images = np.random.default_rng(0).integers(0, 256, (7, 9, 12, 3), dtype=np.uint8)
    others = np.random.default_rng(1).integers(0, 256, (7, 9, 12, 3), dtype=np.uint8)
    x, y = (torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255 for array in (images, others))
    quality = reconstruction_quality(images, others)
    assert quality.mse == pytest.approx((x - y).square().mean().item(), rel=1e-5)
    assert quality.psnr_db == pytest.approx(psnr(mse(x, y)).mean().item(), rel=1e-5)
    assert quality.ssim == pytest.approx(ssim(x, y).mean().item(), rel=1e-4)
    assert quality.sharpness == pytest.approx(sharpness(y).mean().item(), rel=1e-5)
    assert quality.input_sharpness == pytest.approx(sharpness(x).mean().item(), rel=1e-5)
    expected = abs(math.log(quality.sharpness / quality.input_sharpness))
    assert quality.sharpness_distance == pytest.approx(expected)
    monkeypatch.setattr(image_quality, "BATCH_VALUES", 2 * 9 * 12 * 3)
    again = reconstruction_quality((images / 255).astype(np.float32), others)
    assert again.mse == pytest.approx(quality.mse, rel=1e-5)
    assert again.ssim == pytest.approx(quality.ssim, rel=1e-4)


def test_noise_is_as_far_as_blur() -> None:
    """The distance of sharpness is no reward for noise, and is none where there is no edge."""
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 1), dtype=np.uint8)
    half = (images / 255 * 0.5).astype(np.float32)
    assert reconstruction_quality(images, half).sharpness_distance == pytest.approx(math.log(4), rel=1e-4)
    assert reconstruction_quality(half, images).sharpness_distance == pytest.approx(math.log(4), rel=1e-4)
    assert reconstruction_quality(images, np.zeros_like(half)).sharpness_distance is None


def test_images_that_do_not_pair_are_refused() -> None:
    """Other shapes, or no images at all."""
    with pytest.raises(ValueError, match="do not pair"):
        reconstruction_quality(np.zeros((2, 8, 8, 1)), np.zeros((3, 8, 8, 1)))
    with pytest.raises(ValueError, match="do not pair"):
        reconstruction_quality(np.zeros((0, 8, 8, 1)), np.zeros((0, 8, 8, 1)))
