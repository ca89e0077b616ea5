"""The likelihood of a run that leaves it to the data: `likelihood` is `auto`."""

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.binary_pixels import NEARLY_BINARY, binary_share
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.objectives import OBJECTIVES

__all__ = ["chosen_likelihood"]

# Above this share, which is 1 but for rounding, all pixels are black and white.
ALL = 1 - 1e-9


def chosen_likelihood(config: Config, images_NHWC: NDArray[np.uint8]) -> tuple[Config, str]:
    """Return the settings with a likelihood instead of `auto`, and the reason, "" if it was given.

    It is the one that another setting needs; else Bernoulli for images that are binary or nearly so, and a
    Gaussian for all others, whose sigma is learned.

    Args:
        config: The settings.
        images_NHWC: The training images.
    """
    if config.likelihood != "auto":
        return config, ""
    if needed := OBJECTIVES[config.objective].needs.get("likelihood"):
        likelihood, reason = needed, f"{config.objective} needs it"
    elif config.binarize == "dynamic":
        likelihood, reason = "bernoulli", "pixels are drawn to 0 and 1"
    elif config.sigma is not None:
        likelihood, reason = "gaussian", "sigma is given"
    else:
        likelihood, reason = _by_images(images_NHWC)
    return dataclasses.replace(config, likelihood=likelihood), reason


def _by_images(images_NHWC: NDArray[np.uint8]) -> tuple[Literal["bernoulli", "gaussian"], str]:
    share = binary_share(images_NHWC)
    text = f"{share:.0%} of the variance of black and white pixels"
    if share < NEARLY_BINARY:
        return "gaussian", f"the images have grey levels: {text}"
    return "bernoulli", f"the images are {'binary' if share > ALL else 'nearly binary'}: {text}"
