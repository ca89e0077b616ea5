"""Test and validation images that are data sets of their own: `--test-dataset`, `--validation-dataset`."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from convvae_service.images import printable
from convvae_trainer.data.classes import in_classes_of
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.sources import SourceImages, check_source, read_source, resize_of
from convvae_trainer.data.split_folders import Part
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config

__all__ = ["HeldOutSet", "check_held_out_sets", "held_out_set"]


class HeldOutSet(NamedTuple):
    """Images of a data set that is held out, and a sentence on their choice."""

    data: LabelledImages
    split: str


def check_held_out_sets(config: Config) -> None:
    """Raise `BadData` if a data set that is held out does not exist, before another one is read."""
    for name in (config.test_dataset, config.validation_dataset):
        if name is not None:
            check_source(name)


def held_out_set(
    config: Config, part: Part, train: LabelledImages, source: SourceImages, *, download: bool
) -> HeldOutSet | None:
    """Return the images of the data set that is the validation or test part, or None if none is named.

    Of a data set with parts, they are this part, or else the other one that is not for training. They are
    read in the size, the colours and the classes of the training images.

    Args:
        config: Names the data sets.
        part: `validation` or `test`.
        train: The training images.
        source: Where these come from.
        download: Whether to download a torchvision set that is absent.

    Raises:
        BadData: The data set is missing or damaged, or has images of another shape or of other classes.
    """
    name = config.test_dataset if part == "test" else config.validation_dataset
    if name is None:
        return None
    channels = train.images.shape[3]
    own = dataclasses.replace(config, dataset=name)
    found = read_source(own, download=download, channels=channels, needs_train=False)
    parts = (found.test, found.validation) if part == "test" else (found.validation, found.test)
    data = (parts[0] or parts[1] or found.train).resized(config.image_size, resize_of(own))
    shown = f"{part}_dataset {_public_name(name)}"
    if data.images.shape[1:] != train.images.shape[1:]:
        sizes = ["x".join(map(str, images.shape[1:])) for images in (data.images, train.images)]
        raise BadData(
            f"images of {shown} are {sizes[0]}, but those of {_public_name(config.dataset)} are {sizes[1]}:"
            " give --image-size, or data of the same size and channels"
        )
    data = in_classes_of(train, source.class_names, data, found.class_names, name=shown)
    split = f"the {len(data.images)} images of {_public_name(name)}"
    return HeldOutSet(data, f"{split}; {found.note}" if found.note else split)


def _public_name(dataset: str) -> str:
    """Return a data set's name; for a path its last part, since records name no folder of this machine."""
    return printable(Path(dataset).name or dataset)
