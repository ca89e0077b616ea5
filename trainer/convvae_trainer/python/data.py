"""`load_dataset` for callers in Python, and the data sets that they may give to other functions.

Dimensions: N = images, H, W, C = height, width and channels of an image.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.errors import BadConfig
from convvae_trainer.python.process import called_from_python
from convvae_trainer.python.signature import DATA_SETTINGS, with_settings
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.layers import Layer

if TYPE_CHECKING:
    from convvae_trainer.data.dataset import Dataset
    from convvae_trainer.data.sources import SourceImages

__all__ = ["DatasetLike", "as_settings", "load_dataset", "named_or_given"]

DatasetLike: TypeAlias = Union[str, os.PathLike[str], NDArray[Any], "Dataset"]


@with_settings(*DATA_SETTINGS)
def load_dataset(
    dataset: DatasetLike,
    *,
    labels: NDArray[Any] | None = None,
    download: bool = False,
    **settings: Any,
) -> "Dataset":
    """Load a data set, and split it into training and test images.

        digits = load_dataset("digits")
        photos = load_dataset("photos", image_size=64)
        mine = load_dataset(images, labels=labels)

    Args:
        dataset: `digits`, the name of a torchvision set, the path of a folder of images or of an .npy, .npz
            or idx file, or an array of images: (N, H, W) or (N, H, W, C) with C of 1 or 3, uint8, or
            floating-point within 0 to 1.
        labels: For an array, the classes of its images: integers of shape (N,). None: it has no classes.
        download: Whether to download a torchvision set that is absent.
        **settings: Settings of the data by name, as in `convvae-train fit`: `data_root`, `train_images`,
            `test_dataset`, `validation_dataset`, `validation_share`, `image_size`, `resize_mode`,
            `resize_filter`, `resize_decode`, `max_pixels`, `on_error`.

    Returns:
        A `Dataset`: `train`, `test` and `validation`, uint8 (N, H, W, C), `train_labels` and `test_labels`,
        int64 (N,) or None, and sentences on how the images were chosen. `fit` and `evaluate` take it.

    Raises:
        BadData: The data set is unknown, missing or damaged, or its images have an unusable shape.
        BadConfig: A setting is unknown or not allowed.
        MissingExtra: A package is not installed.
    """
    with called_from_python():
        from convvae_trainer.data import dataset as data
        from convvae_trainer.data.sources import IN_MEMORY, with_absolute_paths

        name, given = named_or_given(dataset, labels)
        if isinstance(given, data.Dataset):
            raise BadConfig("the data set is loaded already")
        values = {**as_settings(settings), "dataset": name or IN_MEMORY}
        config = with_absolute_paths(config_from(Layer(values)))
        loaded = data.load_dataset(config, download=download, source=given)
        return replace(loaded, settings={each: getattr(config, each) for each in DATA_SETTINGS})


def named_or_given(
    dataset: DatasetLike | None, labels: NDArray[Any] | None
) -> "tuple[str | None, Dataset | SourceImages | None]":
    """Return the name or path of a data set, or the data set or images that are in memory; else None.

    Raises:
        BadConfig: There are labels beside a data set that has its own.
        BadData: Arrays have other shapes or types.
    """
    from convvae_trainer.data.dataset import Dataset
    from convvae_trainer.data.sources import array_source

    if isinstance(dataset, np.ndarray):
        return None, array_source(dataset, labels)
    if labels is not None:
        raise BadConfig("labels go with an array of images: a data set has labels of its own")
    if dataset is None or isinstance(dataset, Dataset):
        return None, dataset
    return os.fspath(dataset), None


def as_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with their paths as text, as files have them."""
    return {
        name: str(Path(value)) if isinstance(value, os.PathLike) else value
        for name, value in settings.items()
    }
