"""The data set of a command on published models: pictures are resized as a model's manifest states."""

from collections.abc import Mapping
from typing import Any

from convvae_service.bundle import Manifest
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.layers import FLAGS, Layer

__all__ = ["load_model_data"]


def load_model_data(manifest: Manifest, flags: Mapping[str, Any], *, download: bool) -> Dataset:
    """Load a data set in the way of a model: with its resizing and its channels.

    Args:
        manifest: The manifest of the model.
        flags: Settings of the data by name, such as `dataset`; None counts as not given.
        download: Whether to download a torchvision set that is absent.

    Raises:
        BadConfig: A flag is not allowed.
        BadData: The data set is unknown, missing or damaged, or has too few images.
    """
    resizing = {
        "resize_mode": manifest.resize.mode,
        "resize_filter": manifest.resize.filter,
        "resize_decode": manifest.resize.decode,
    }
    # No model is trained that would need validation images.
    config = config_from({**resizing, "validation_share": 0.0}, Layer(flags, FLAGS))
    return load_dataset(config, download=download, channels=manifest.image.channels)
