"""Data sets in memory: uint8 images and labels, split into training and test images."""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape
from convvae_trainer.data.arrays import check_size
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.selection import lacking
from convvae_trainer.data.sources import SourceImages, read_source, resize_of
from convvae_trainer.data.splits import hold_out_test
from convvae_trainer.data.trained_on import without_copies
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config

__all__ = ["Dataset", "load_dataset", "load_other"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Images in memory, uint8 of shape (N, H, W, C), and labels, int64 of shape (N,), or None.

    `split` is a sentence on the choice of the test images. `skipped` has the path and fault of each file that
    was skipped.
    """

    name: str
    split: str
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    train_labels: NDArray[np.int64] | None = None
    test_labels: NDArray[np.int64] | None = None
    skipped: Sequence[str] = ()

    @property
    def image(self) -> ImageShape:
        """The shape of one image."""
        height, width, channels = self.train.shape[1:]
        return ImageShape(height=height, width=width, channels=channels)

    def fingerprint(self) -> str:
        """Return the sha256 of all pixels and shapes, which is equal if and only if the images are."""
        return _sha256((self.train, self.test))

    def labels_fingerprint(self) -> str | None:
        """Return the sha256 of all labels, or None if training or test images have none."""
        if self.train_labels is None or self.test_labels is None:
            return None
        return _sha256((self.train_labels, self.test_labels))


def _sha256(arrays: Iterable[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def load_dataset(config: Config, *, download: bool = False, channels: int | None = None) -> Dataset:
    """Load the data set that `config` names.

    Args:
        config: Names the data set, and says how pictures are resized.
        download: Whether to download a torchvision set that is absent.
        channels: Channels of picture files: 1 (grey) or 3 (RGB). None: 3 if any picture is in colour. Arrays
            keep their channels.

    Raises:
        BadData: The data set is unknown, missing or damaged, its images have an unusable size, or there are
            too few of them.
    """
    return _split(config, read_source(config, download=download, channels=channels))


def load_other(
    config: Config, *, own: str, channels: int | None = None, download: bool = False
) -> tuple[LabelledImages, str, Dataset | None]:
    """Load the images on which a run is evaluated from a data set that may not be the run's.

    They are the data set's own test images, or all of its images. If the data set is the run's, in another
    place, they are the run's test images.

    Args:
        config: Names the data set.
        own: Fingerprint of the run's data set.
        channels: Channels of the run's images, as in `load_dataset`.
        download: Whether to download a torchvision set that is absent.

    Returns:
        (images, a sentence on their choice, the data set if it is the run's, else None).

    Raises:
        BadData: As `load_dataset`.
    """
    source = read_source(config, download=download, channels=channels)
    # A data set that cannot be split is not the run's.
    with contextlib.suppress(BadData):
        dataset = _split(config, source)
        if dataset.fingerprint() == own:
            return LabelledImages(dataset.test, dataset.test_labels), dataset.split, dataset
    data = (source.test or source.train).resized(config.image_size, resize_of(config))
    check_size(*data.images.shape[1:3], name=config.dataset)
    count = len(data.images)
    split = f"all {count} images" if source.test is None else f"the data set's own {count} test images"
    return data, f"{split}; {source.note}" if source.note else split, None


def _split(config: Config, source: SourceImages) -> Dataset:
    """Return the data set of a source, resized, with test images and the training images that are used."""
    resize = resize_of(config)
    train = source.train.resized(config.image_size, resize)
    check_size(*train.images.shape[1:3], name=config.dataset)
    if source.test is None:
        train, test, split = hold_out_test(train, name=config.dataset)
    else:
        test = source.test.resized(config.image_size, resize)
        split = f"the data set's own {len(test.images)} test images"
    if config.train_images is not None:
        split += f"; {_first_images_text(config.train_images, train, name=config.dataset)}"
        train = train.take(slice(config.train_images))
    if source.test is not None:
        test, copies = without_copies(test, train, name=config.dataset)
        split += f"; {copies}" if copies else ""
    if source.note:
        split += f"; {source.note}"
    _check(train.images, test.images, name=config.dataset)
    return Dataset(
        name=config.dataset,
        split=split,
        train=train.images,
        test=test.images,
        train_labels=train.labels,
        test_labels=test.labels,
        skipped=source.skipped,
    )


def _first_images_text(count: int, train: LabelledImages, *, name: str) -> str:
    """Return a sentence on training on the first `count` images only.

    Raises:
        BadData: There are fewer images.
    """
    available = len(train.images)
    if count > available:
        raise BadData(
            f"train_images is {count}, but {name} has {available} training images: give"
            f" --train-images {available}, or fewer, which wins over a preset and a file"
        )
    text = f"trained on the first {count} training images"
    if words := lacking(train.labels, count):
        text += f", which are {words}"
    return text


def _check(train: NDArray[np.uint8], test: NDArray[np.uint8], *, name: str) -> None:
    if len(train) < 2 or len(test) < 1:
        raise BadData(f"{name} has {len(train)} training and {len(test)} test images: 2 and 1 are needed")
    if train.shape[1:] != test.shape[1:]:
        raise BadData(f"training images of {name} are {train.shape[1:]}, test images {test.shape[1:]}")
