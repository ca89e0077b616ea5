"""The parts of a data set: the images to train on, to validate on and to test on."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.arrays import check_size
from convvae_trainer.data.held_out_sets import held_out_set
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.pixel_hash import pixel_hashes
from convvae_trainer.data.selection import lacking
from convvae_trainer.data.sources import SourceImages, resize_of
from convvae_trainer.data.splits import MIN_TRAINING, held_out_to_test, held_out_to_validate
from convvae_trainer.data.trained_on import without_copies
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config

__all__ = ["DataParts", "data_parts", "own_test_text"]


class DataParts(NamedTuple):
    """The parts of a data set, with a sentence on the test images and one on the validation images."""

    train: LabelledImages
    validation: LabelledImages | None
    test: LabelledImages
    split: str
    validation_split: str


def data_parts(config: Config, source: SourceImages, *, download: bool) -> DataParts:
    """Return the parts of a data set, resized.

    Test and validation images are those of another data set that the settings name, else the data set's own,
    else training images that are held out. No image is in two parts: copies are left out of the test and
    validation images.

    Args:
        config: The settings of the run.
        source: The images as they were read.
        download: Whether to download a torchvision set that is absent.

    Raises:
        BadData: A part is missing, has too few images, or does not fit the training images.
    """
    name = config.dataset
    data = source.train.resized(config.image_size, resize_of(config))
    check_size(*data.images.shape[1:3], name=name)
    test, split, own_validation = _test_part(config, source, data, download=download)
    validation, validation_split = _given_validation(config, source, own_validation, data, download=download)
    # Rows of the data: the images are copied once, since they may take most of the memory.
    rows, hashes_N = np.arange(len(data.images)), pixel_hashes(data.images)
    if test is None:
        is_test_N, split = held_out_to_test(hashes_N, name=name)
        test, rows = data.take(is_test_N), np.flatnonzero(~is_test_N)
    if config.train_images is not None:
        split += f"; {_first_images_text(config.train_images, data, rows, name=name)}"
        rows = rows[: config.train_images]
    if len(rows) < MIN_TRAINING or not len(test.images):
        raise BadData(
            f"{name} has {len(rows)} training and {len(test.images)} test images: {MIN_TRAINING} and 1 are"
            " needed"
        )
    test, copies = without_copies(test, hashes_N[rows], name=config.test_dataset or name)
    split = "; ".join(text for text in (split, copies, source.note) if text)
    if validation is None:
        is_validation_N = held_out_to_validate(hashes_N[rows], share=config.validation_share)
        validation_split = _validation_text(int(is_validation_N.sum()), len(rows), config.validation_share)
        if is_validation_N.any():
            validation, rows = data.take(rows[is_validation_N]), rows[~is_validation_N]
    else:
        name = config.validation_dataset or name
        for part, hashes in (("training", hashes_N[rows]), ("test", pixel_hashes(test.images))):
            validation, copies = without_copies(
                validation, hashes, name=name, part="validation", other_part=part
            )
            validation_split += f"; {copies}" if copies else ""
    are_first = np.array_equal(rows, np.arange(len(rows)))
    train = data.take(slice(len(rows)) if are_first else rows)
    return DataParts(train, validation, test, split, validation_split)


def _validation_text(count: int, total: int, share: float | None) -> str:
    """Return a sentence on the `count` of `total` training images that are held out to validate on."""
    if count:
        return f"{count} of {total} training images, by the hash of their pixels"
    return "none" if share == 0 else f"none, since there are {total} training images"


def own_test_text(source: SourceImages, count: int) -> str:
    """Return a sentence on the `count` images of a data set's own part that are its test images."""
    if source.test is None:
        return f"the data set's own {count} validation images, since it has no test images"
    return f"the data set's own {count} test images"


class _TestPart(NamedTuple):
    test: LabelledImages | None
    split: str
    own_validation: LabelledImages | None


def _test_part(config: Config, source: SourceImages, train: LabelledImages, *, download: bool) -> _TestPart:
    """Return test images that are no training images, if there are such, and what is left to validate on."""
    if (named := held_out_set(config, "test", train, source, download=download)) is not None:
        return _TestPart(*named, source.validation)
    if (own := source.test or source.validation) is None:
        return _TestPart(None, "", None)
    test = own.resized(config.image_size, resize_of(config))
    if test.images.shape[1:] != train.images.shape[1:]:
        shapes = f"{train.images.shape[1:]}, test images {test.images.shape[1:]}"
        raise BadData(f"training images of {config.dataset} are {shapes}")
    own_validation = source.validation if source.test is not None else None
    return _TestPart(test, own_test_text(source, len(test.images)), own_validation)


def _given_validation(
    config: Config,
    source: SourceImages,
    own: LabelledImages | None,
    train: LabelledImages,
    *,
    download: bool,
) -> tuple[LabelledImages | None, str]:
    """Return the validation images that are no training images, and a sentence on them; None without any."""
    named = held_out_set(config, "validation", train, source, download=download)
    if named is not None:
        return named
    if own is None or config.validation_share == 0:
        return None, ""
    if config.validation_share is not None:
        raise BadData(
            f"validation_share is {config.validation_share}, but {config.dataset} has {len(own.images)}"
            " validation images of its own: omit --validation-share, or give 0 to validate nothing"
        )
    text = f"the data set's own {len(own.images)} validation images"
    return own.resized(config.image_size, resize_of(config)), text


def _first_images_text(count: int, data: LabelledImages, rows: NDArray[np.intp], *, name: str) -> str:
    """Return a sentence on the use of the first `count` training images only.

    Raises:
        BadData: There are fewer images.
    """
    available = len(rows)
    if count > available:
        raise BadData(
            f"train_images is {count}, but {name} has {available} training images: give"
            f" --train-images {available}, or fewer, which wins over a preset and a file"
        )
    text = f"the first {count} training images are used"
    if words := lacking(None if data.labels is None else data.labels[rows], count):
        text += f", which are {words}"
    return text
