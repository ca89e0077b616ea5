"""Presets: settings that suit well-known data sets. A settings file and flags override them."""

import difflib
import re
from collections.abc import Callable
from typing import Any

from convvae_trainer.errors import BadConfig

__all__ = [
    "PRESETS",
    "cifar10",
    "colour32",
    "colour64",
    "faces64",
    "fashion_mnist",
    "mnist",
    "preset_settings",
]


def mnist() -> dict[str, Any]:
    """Return the settings for binary digits, drawn again in each epoch, as in published figures.

    Training uses the first 50,000 images, all of them. The other 10,000 are free for the choice of settings.
    """
    return {
        "dataset": "mnist",
        "train_images": 50_000,
        "validation_share": 0.0,
        "binarize": "dynamic",
        "likelihood": "bernoulli",
        "latent_dim": 40,
        "width": 24,
        "last_side": 4,
        "blocks": 1,
        "hidden": 256,
        "weight_decay": 0.05,
        "kl_warmup_epochs": 5.0,
        "ema_decay": 0.9995,
        "minutes": 60.0,
    }


def fashion_mnist() -> dict[str, Any]:
    """Return the settings for binary images of clothes, drawn and split like `mnist`."""
    return mnist() | {"dataset": "fashion-mnist"}


def cifar10() -> dict[str, Any]:
    """Return the settings for colour photographs, with a probability of their 256 levels.

    Bits per dimension are then comparable with published ones. All 50,000 images are trained on.
    """
    return {
        "dataset": "cifar10",
        "validation_share": 0.0,
        "likelihood": "discretised-logistic",
        "latent_dim": 128,
        "width": 64,
        "blocks": 2,
        "hidden": 1024,
        "kl_warmup_epochs": 5.0,
        "ema_decay": 0.9995,
        "epochs": 100,
    }


def faces64() -> dict[str, Any]:
    """Return the settings for a VAE/GAN of 64x64 faces, with the sizes of Larsen et al. 2016.

    They name no data set.
    """
    return {
        "image_size": (64, 64),
        "objective": "vae-gan",
        "latent_dim": 128,
        "width": 64,
        "batch_size": 64,
        "learning_rate": 5e-4,
        "epochs": 60,
    }


def colour32() -> dict[str, Any]:
    """Return the settings for a VAE of 32x32 colour images that two CPU cores train in 20 minutes.

    They name no data set. The time is that of training; what is left is for reading and evaluating images.
    """
    return {
        "image_size": (32, 32),
        "likelihood": "gaussian",
        "latent_dim": 128,
        "ema_decay": 0.9995,
        "minutes": 15.0,
    }


def colour64() -> dict[str, Any]:
    """Return the settings for a VAE of 64x64 colour images in the same time.

    The first halving, which costs the most, has half the channels.
    """
    return colour32() | {"image_size": (64, 64), "width": 16}


PRESETS: dict[str, Callable[[], dict[str, Any]]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "faces64": faces64,
    "colour32": colour32,
    "colour64": colour64,
}


def preset_settings(name: str | None) -> dict[str, Any]:
    """Return the settings of a preset.

    Args:
        name: The name of the preset; case, dashes and underscores do not matter. None gives no settings.

    Raises:
        BadConfig: No preset has this name.
    """
    if name is None:
        return {}
    by_plain_name = {_plain(known): known for known in PRESETS}
    if _plain(name) in by_plain_name:
        return PRESETS[by_plain_name[_plain(name)]]()
    near = difflib.get_close_matches(_plain(name), by_plain_name, n=1, cutoff=0.0)[0]
    raise BadConfig(
        f"unknown preset {name!r}: did you mean {by_plain_name[near]!r}? The presets are {', '.join(PRESETS)}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())
