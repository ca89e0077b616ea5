"""Bits per dimension, which exist only where the likelihood is a probability of the pixels' levels."""

import math

__all__ = ["bits_per_dim", "no_bits_reason"]

_DENSITY = "a gaussian likelihood is a density of pixels, not a probability of their levels"
_CROSS_ENTROPY = (
    "a bernoulli likelihood is a probability of black and white pixels only, and these have grey levels"
)


def no_bits_reason(likelihood: str, *, images_are_binary: bool, has_rate: bool) -> str:
    """Return why a model has no bits per dimension on some images, or "" if it has.

    Args:
        likelihood: The name of its likelihood.
        images_are_binary: Whether all values of the images are 0 and 255.
        has_rate: Whether it has a rate; an autoencoder has none.
    """
    if not has_rate:
        return "an autoencoder has no rate, and so no bound on the probability of an image"
    if likelihood == "bernoulli":
        return "" if images_are_binary else _CROSS_ENTROPY
    return _DENSITY if likelihood == "gaussian" else ""


def bits_per_dim(elbo: float, num_values: int) -> float:
    """Return the bits for a value of an image whose ELBO, in nats, is of a probability of pixels."""
    return -elbo / (num_values * math.log(2))
