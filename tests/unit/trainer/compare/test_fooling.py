"""Verdicts on pairs of systems that somebody might fool: figures are measured on given reconstructions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_trainer.compare.claim import Claim
from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.compare.pair_claims import realism_claim, sharper_claim
from convvae_trainer.compare.system import make_systems
from support.compared_models import manifest_of, measured

Images = NDArray[np.uint8]
HOLDS, FAILS, UNSAID = "holds here", "does not hold here", "cannot be said"
SEEDS = (0, 1, 2)


def rectangles() -> Images:
    """Return images of grey rectangles, 16x16."""
    random = np.random.default_rng(0)
    images = np.zeros((60, 16, 16, 1), np.uint8)
    for image in images:
        top, left = random.integers(1, 9, 2)
        height, width = random.integers(4, 8, 2)
        image[top : top + height, left : left + width] = random.integers(100, 256)
    return images


IMAGES = rectangles()
ROW, COLUMN = np.indices((16, 16))
CHECKERBOARD = ((ROW + COLUMN) % 2 * 2 - 1)[None, :, :, None]


def as_pixels(values: NDArray[Any]) -> Images:
    pixels: Images = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


def blurred(seed: int) -> NDArray[np.float64]:
    """Return the reconstructions of a VAE: means of 3x3 pixels, a little different with each seed."""
    padded = np.pad(IMAGES.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = [padded[:, y : y + 16, x : x + 16] for y in range(3) for x in range(3)]
    mean = np.mean(shifted, axis=0, dtype=np.float64)
    return (0.96 + 0.01 * seed) * mean + (0.04 - 0.01 * seed) * IMAGES


def crisp(seed: int) -> Images:
    """Return sharp reconstructions whose pixels are further off: the images, a pixel to the side."""
    return as_pixels((0.97 + 0.005 * seed) * np.roll(IMAGES, 1, axis=2))


def vaes(seeds: tuple[int, ...] = SEEDS, **facts: Any) -> list[ModelReport]:
    return [
        measured(manifest_of("vae", seed=seed, **facts), IMAGES, as_pixels(blurred(seed))) for seed in seeds
    ]


def gans(
    reconstruct: Callable[[int], Images] = crisp, seeds: tuple[int, ...] = SEEDS, **facts: Any
) -> list[ModelReport]:
    return [measured(manifest_of("vae-gan", seed=seed, **facts), IMAGES, reconstruct(seed)) for seed in seeds]


def sharper(*models: ModelReport) -> Claim:
    return sharper_claim("vae-gan", make_systems(models))


def words(claim: Claim) -> str:
    return " ".join(case.words for case in claim.cases)


def test_sharp_reconstructions_of_matched_systems_are_sharper() -> None:
    """Three seeds of both, trained alike: the claim holds, and the numbers have their deviations."""
    claim = sharper(*vaes(), *gans())
    assert claim.verdict == HOLDS
    assert words(claim).count("±") == 4


@pytest.mark.parametrize("amplitude", [2, 4, 8, 16, 64, 127])
def test_a_checkerboard_on_the_vaes_reconstructions_is_not_sharper(amplitude: int) -> None:
    """A pattern of single pixels brings sharpness, and no edge: weak or strong, the claim does not hold."""
    claim = sharper(*vaes(), *gans(lambda seed: as_pixels(blurred(seed) + amplitude * CHECKERBOARD)))
    assert claim.verdict in (FAILS, UNSAID)


def enlarged(images: Images) -> Images:
    """Return the images at four times their size, smooth as digits are."""
    large = [
        np.asarray(Image.fromarray(image[..., 0]).resize((64, 64), Image.Resampling.BICUBIC))
        for image in images
    ]
    return np.stack(large)[..., None]


def enlarged_systems(gan: Callable[[int], Images]) -> list[ModelReport]:
    """Return three seeds of a blurry VAE and of a VAE/GAN, of enlarged images."""
    inputs = enlarged(IMAGES)
    return [
        measured(manifest_of(objective, seed=seed), inputs, reconstruct(seed))
        for objective, reconstruct in (
            ("vae", lambda seed: enlarged(as_pixels(blurred(seed)))),
            ("vae-gan", gan),
        )
        for seed in SEEDS
    ]


def test_enlarged_images_are_judged_at_their_own_size() -> None:
    """Weak noise is as sharp as enlarged images are, and hides no edge: the claim holds."""
    noise = np.random.default_rng(0).normal(0, 1.5, (60, 64, 64, 1))
    claim = sharper(*enlarged_systems(lambda seed: as_pixels(enlarged(crisp(seed)) + noise)))
    assert claim.verdict == HOLDS
    assert "at 16x16 (the images' own size)" in words(claim)


@pytest.mark.parametrize("amplitude", [2, 8, 16, 32])
def test_a_checkerboard_on_enlarged_images_is_not_sharper(amplitude: int) -> None:
    """On the VAE's reconstructions a pattern makes no edge, and on sharp ones it is noise that is named."""
    board = ((np.indices((64, 64)).sum(0) % 2) * 2 - 1)[None, :, :, None] * amplitude
    blurry = enlarged_systems(lambda seed: as_pixels(enlarged(as_pixels(blurred(seed))) + board))
    assert sharper(*blurry).verdict in (FAILS, UNSAID)
    crisp_claim = sharper(*enlarged_systems(lambda seed: as_pixels(enlarged(crisp(seed)) + board)))
    if amplitude >= 8:
        assert crisp_claim.verdict == FAILS
        assert "noise finer than the images' edges, in 3 of 3 runs of VAE/GAN" in words(crisp_claim)


@pytest.mark.parametrize("amplitude", [64, 127])
def test_a_strong_checkerboard_is_not_the_image(amplitude: int) -> None:
    """The verdict says that the floor on SSIM is missed."""
    claim = sharper(
        *vaes(), *gans(lambda seed: as_pixels(128 + seed + amplitude * CHECKERBOARD + 0 * IMAGES))
    )
    assert claim.verdict == FAILS
    assert "are not the images: SSIM" in words(claim)


@pytest.mark.parametrize(
    "reconstruct",
    [
        lambda seed: IMAGES[np.random.default_rng(seed).permutation(len(IMAGES))],
        lambda seed: np.roll(IMAGES, seed + 1, axis=0),
        lambda seed: as_pixels(IMAGES * 0 + IMAGES[seed]),
        lambda seed: np.random.default_rng(seed).integers(0, 256, IMAGES.shape, dtype=np.uint8),
        lambda seed: 255 - IMAGES + np.uint8(seed),
    ],
    ids=["shuffled", "the next image", "one image", "noise", "negative"],
)
def test_sharp_pictures_of_something_else_fail(reconstruct: Callable[[int], Images]) -> None:
    """Real images are as sharp as the data, and as like them as can be; but they are not the input."""
    models = [*vaes(), *gans(reconstruct)]
    assert sharper(*models).verdict == FAILS
    for model in models:
        distance = 5.0 if model.objective == "vae" else 0.0
        object.__setattr__(model.frechet, "frechet_reconstructions", distance + 0.1 * len(model.label))
    assert realism_claim("vae-gan", make_systems(models)).verdict == FAILS


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"settings": {"likelihood": "bernoulli"}}, "likelihood gaussian and bernoulli"),
        ({"settings": {"latent_dim": 8}}, "latent dimensions 4 and 8"),
        ({"settings": {"width": 16}}, "width 32 and 16"),
        ({"settings": {"hidden": 0}}, "hidden 512 and 0"),
        ({"settings": {"batch_size": 64}}, "batch_size 128 and 64"),
        ({"settings": {"ema_decay": 0.0}}, "ema_decay 0.999 and 0"),
        ({"settings": {"binarize": "dynamic", "likelihood": "bernoulli"}}, "binarize none and dynamic"),
        ({"steps": 50}, "steps 100 and 50"),
        ({"epochs": 2.0}, "epochs 5 and 2"),
        ({"data": "other"}, "training data, whose pixels are not the same"),
        ({"images": 40}, "training images 80 and 40"),
        ({"share_done": 0.5}, "share of the training that is done 100% and 50%"),
        ({"weights_from": "other@1"}, "first weights random and other@1"),
        ({"ends": [[5, None], [9, None]]}, "ends of the run one and [[5, None], [9, None]]"),
        ({"settings_recorded": False}, "settings, which not every bundle records"),
        ({"settings": {"beta": 10.0}}, "is not the lecture's VAE: beta 10"),
        ({"settings": {"sigma": 1.0}}, "is not the lecture's VAE: sigma 1"),
        ({"settings": {"terms": "distortion"}}, "is not the lecture's VAE: terms distortion"),
    ],
)
def test_systems_that_are_not_matched_are_not_judged(other: dict[str, Any], named: str) -> None:
    """Nothing is said of a pair that differs in what matters, and the difference is named."""
    claim = sharper(*vaes(**other), *gans())
    assert claim.verdict == UNSAID
    assert named in words(claim)


def test_only_the_matched_vae_of_several_is_judged() -> None:
    """In a sweep, each system meets the VAE that was trained like it."""
    wide = vaes(settings={"latent_dim": 8})
    claim = sharper(*wide, *vaes(), *gans())
    assert claim.verdict == HOLDS
    assert len(claim.cases) == 1


def test_one_seed_says_nothing_of_a_difference() -> None:
    """However large the difference is, one seed of either system cannot tell it from chance."""
    for models in ([*vaes((0,)), *gans(seeds=(0,))], [*vaes(), *gans(seeds=(0,))]):
        claim = sharper(*models)
        assert claim.verdict == UNSAID
        assert "one seed: cannot be said beyond chance" in words(claim)


def test_one_run_under_three_seeds_is_one_seed() -> None:
    """Equal weights make no spread, whatever seeds their manifests name."""
    copies = [
        measured(manifest_of("vae-gan", seed=seed, weights="same"), IMAGES, crisp(0), label=f"g{seed}")
        for seed in SEEDS
    ]
    claim = sharper(*vaes(), *copies)
    assert claim.verdict == UNSAID
    assert len(claim.cases) == 3


def test_a_difference_within_the_spread_of_seeds_is_not_said() -> None:
    """Two systems whose seeds overlap differ by chance."""
    claim = sharper(*vaes(), *gans(lambda seed: as_pixels(blurred(2 - seed))))
    assert claim.verdict == UNSAID
    assert "within the spread of seeds" in words(claim)


def test_a_vae_whose_reconstructions_are_not_the_images_is_no_yardstick() -> None:
    """Against a VAE that has learned nothing, nothing is said."""
    untrained = [
        measured(manifest_of("vae", seed=seed), IMAGES, as_pixels(IMAGES * 0 + 20 + seed)) for seed in SEEDS
    ]
    claim = sharper(*untrained, *gans())
    assert claim.verdict == UNSAID
    assert "the reconstructions of VAE are not the images" in words(claim)


def test_a_vae_that_draws_almost_the_mean_image_is_no_yardstick() -> None:
    """One blob for every image has some SSIM with each; that is not a third of the way to the images."""
    mean = IMAGES.mean(axis=0, keepdims=True)
    blobs = [
        measured(manifest_of("vae", seed=seed), IMAGES, as_pixels((0.9 + 0.01 * seed) * mean + 0.1 * IMAGES))
        for seed in SEEDS
    ]
    claim = sharper(*blobs, *gans())
    assert claim.verdict == UNSAID
    assert "the reconstructions of VAE are not the images" in words(claim)


def test_reconstructions_that_the_classifier_cannot_read_fail() -> None:
    """With labels, a reconstruction has to be read about as often as the VAE's."""
    models = [*vaes(), *gans()]
    for model in models:
        object.__setattr__(model.frechet, "accuracy", 0.9 if model.objective == "vae" else 0.5)
    claim = sharper(*models)
    assert claim.verdict == FAILS
    assert "50% are classified correctly, below 81%" in words(claim)
