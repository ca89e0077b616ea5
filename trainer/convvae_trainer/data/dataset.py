"""Data sets in memory: uint8 images and labels, split into training, validation and test images."""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape
from convvae_trainer.data.arrays import check_size
from convvae_trainer.data.classes import ClassNames
from convvae_trainer.data.held_out_sets import check_held_out_sets
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.parts import data_parts, own_test_text
from convvae_trainer.data.sources import SourceImages, read_source, resize_of
from convvae_trainer.data.trained_on import Fingerprints, SeenCounts, unseen
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config

__all__ = ["Dataset", "load_dataset", "load_other", "without_seen"]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Dataset:
    """Images in memory, uint8 of shape (N, H, W, C), and labels, int64 of shape (N,), or None.

    Attributes:
        name: The data set, as the settings name it.
        split: A sentence on the choice of the test images.
        train: The images to train on, all of them.
        test: The test images.
        train_labels: The labels of the training images.
        test_labels: The labels of the test images, of the same classes.
        skipped: Path and fault of each file that was skipped.
        validation: The images that validate, or None.
        validation_split: A sentence on their choice, or on why there are none.
        class_names: The names of the labels, if they are known.
        hints: Sentences on what may have been meant in another way.
        resized_from: The sizes of the images before they were resized, in words, or "".
        settings: The settings that it was loaded with, where they are known: a run on it records them.
    """

    name: str
    split: str
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    train_labels: NDArray[np.int64] | None = None
    test_labels: NDArray[np.int64] | None = None
    skipped: Sequence[str] = ()
    validation: NDArray[np.uint8] | None = None
    validation_split: str = ""
    class_names: ClassNames | None = None
    hints: Sequence[str] = ()
    resized_from: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        validation = 0 if self.validation is None else len(self.validation)
        counts = f"{len(self.train)} training, {validation} validation and {len(self.test)} test images"
        return f"Dataset({self.name!r}, {counts} of {self.image})"

    @property
    def image(self) -> ImageShape:
        """The shape of one image."""
        height, width, channels = self.train.shape[1:]
        return ImageShape(height=height, width=width, channels=channels)

    def fingerprint(self) -> str:
        """Return the sha256 of all pixels and shapes, which is equal if and only if images and parts are."""
        parts = (self.train, self.validation, self.test)
        return _sha256(part for part in parts if part is not None)

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


def load_dataset(
    config: Config,
    *,
    download: bool = False,
    channels: int | None = None,
    source: SourceImages | None = None,
) -> Dataset:
    """Load the data set that `config` names.

    Args:
        config: Names the data set, and says how pictures are resized.
        download: Whether to download a torchvision set that is absent.
        channels: Channels of picture files: 1 (grey) or 3 (RGB). None: 3 if any picture is in colour. Arrays
            keep their channels.
        source: The images, if they are in memory. None: `config` names them.

    Raises:
        BadData: The data set is unknown, missing or damaged, its images have an unusable size, or there are
            too few of them. Or the test or validation images of another data set do not fit.
    """
    check_held_out_sets(config)
    if source is None:
        source = read_source(config, download=download, channels=channels)
    return _split(config, source, download=download)


def load_other(
    config: Config,
    *,
    own: str,
    channels: int | None = None,
    download: bool = False,
    source: SourceImages | None = None,
) -> tuple[LabelledImages, str, Dataset | None]:
    """Load the images on which a run is evaluated from a data set that may not be the run's.

    They are the data set's own test images, or else its validation images, or all of its images. If the data
    set is the run's, in another place, they are the run's test images.

    Args:
        config: Names the data set.
        own: Fingerprint of the run's data set.
        channels: Channels of the run's images, as in `load_dataset`.
        download: Whether to download a torchvision set that is absent.
        source: The images, if they are in memory. None: `config` names them.

    Returns:
        (images, a sentence on their choice, the data set if it is the run's, else None).

    Raises:
        BadData: As `load_dataset`.
    """
    if source is None:
        source = read_source(config, download=download, channels=channels, needs_train=False)
    # A data set that cannot be split is not the run's.
    with contextlib.suppress(BadData):
        dataset = _split(config, source, download=download)
        if dataset.fingerprint() == own:
            return LabelledImages(dataset.test, dataset.test_labels), dataset.split, dataset
    own_part = source.test or source.validation
    data = (own_part or source.train).resized(config.image_size, resize_of(config))
    check_size(*data.images.shape[1:3], name=config.dataset)
    count = len(data.images)
    split = f"all {count} images" if own_part is None else own_test_text(source, count)
    return data, f"{split}; {source.note}" if source.note else split, None


def _split(config: Config, source: SourceImages, *, download: bool) -> Dataset:
    parts = data_parts(config, source, download=download)
    hints = list(source.hints)
    if not hints and parts.train.labels is not None and len(np.unique(parts.train.labels)) == 1:
        hints.append("all training images have the same label")
    sizes = source.sizes or "x".join(map(str, source.train.images.shape[1:3]))
    size = "x".join(map(str, parts.train.images.shape[1:3]))
    return Dataset(
        name=config.dataset,
        split=parts.split,
        train=parts.train.images,
        test=parts.test.images,
        train_labels=parts.train.labels,
        test_labels=parts.test.labels,
        skipped=source.skipped,
        validation=None if parts.validation is None else parts.validation.images,
        validation_split=parts.validation_split,
        class_names=source.class_names,
        hints=hints,
        resized_from="" if sizes == size else sizes,
    )


def without_seen(
    dataset: Dataset, trained_on: Mapping[str, Fingerprints | None]
) -> tuple[Dataset, SeenCounts]:
    """Return the data set without the test images that a model was trained on, and their number by model.

    Raises:
        BadData: No test image is left.
    """
    found = unseen(LabelledImages(dataset.test, dataset.test_labels), trained_on, name=dataset.name)
    test, labels = found.data
    return replace(dataset, test=test, test_labels=labels), found.left_out
