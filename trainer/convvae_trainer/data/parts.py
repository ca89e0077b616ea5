"""The parts of a data set: the images to train on, to validate on and to test on."""

from typing import NamedTuple

from convvae_trainer.data.arrays import check_size
from convvae_trainer.data.held_out_sets import held_out_set
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.selection import lacking
from convvae_trainer.data.sources import SourceImages, resize_of
from convvae_trainer.data.splits import MIN_TRAINING, hold_out_test, hold_out_validation
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
    train = source.train.resized(config.image_size, resize_of(config))
    check_size(*train.images.shape[1:3], name=name)
    train, test, split, own_validation = _test_part(config, source, train, download=download)
    validation, validation_split = _given_validation(config, source, own_validation, train, download=download)
    if config.train_images is not None:
        split += f"; {_first_images_text(config.train_images, train, name=name)}"
        train = train.take(slice(config.train_images))
    if len(train.images) < MIN_TRAINING or not len(test.images):
        raise BadData(
            f"{name} has {len(train.images)} training and {len(test.images)} test images:"
            f" {MIN_TRAINING} and 1 are needed"
        )
    test, copies = without_copies(test, train, name=config.test_dataset or name)
    split = "; ".join(text for text in (split, copies, source.note) if text)
    if validation is None:
        return _with_validation_by_hash(
            DataParts(train, None, test, split, ""), share=config.validation_share
        )
    name = config.validation_dataset or name
    for other, other_part in ((train, "training"), (test, "test")):
        validation, copies = without_copies(
            validation, other, name=name, part="validation", other_part=other_part
        )
        validation_split += f"; {copies}" if copies else ""
    return DataParts(train, validation, test, split, validation_split)


def _with_validation_by_hash(parts: DataParts, *, share: float | None) -> DataParts:
    """Return the parts with some of the training images, if there are enough, as validation images."""
    total = len(parts.train.images)
    train, validation = hold_out_validation(parts.train, share=share)
    if validation is not None:
        text = f"{len(validation.images)} of {total} training images, by the hash of their pixels"
    else:
        text = "none" if share == 0 else f"none, since there are {total} training images"
    return parts._replace(train=train, validation=validation, validation_split=text)


def own_test_text(source: SourceImages, count: int) -> str:
    """Return a sentence on the `count` images of a data set's own part that are its test images."""
    if source.test is None:
        return f"the data set's own {count} validation images, since it has no test images"
    return f"the data set's own {count} test images"


class _TestPart(NamedTuple):
    train: LabelledImages
    test: LabelledImages
    split: str
    own_validation: LabelledImages | None


def _test_part(config: Config, source: SourceImages, train: LabelledImages, *, download: bool) -> _TestPart:
    """Return the test images, and the training images and own validation images that are none of them."""
    if (named := held_out_set(config, "test", train, source, download=download)) is not None:
        return _TestPart(train, *named, source.validation)
    if (own := source.test or source.validation) is None:
        return _TestPart(*hold_out_test(train, name=config.dataset), None)
    test = own.resized(config.image_size, resize_of(config))
    if test.images.shape[1:] != train.images.shape[1:]:
        shapes = f"{train.images.shape[1:]}, test images {test.images.shape[1:]}"
        raise BadData(f"training images of {config.dataset} are {shapes}")
    own_validation = source.validation if source.test is not None else None
    return _TestPart(train, test, own_test_text(source, len(test.images)), own_validation)


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


def _first_images_text(count: int, train: LabelledImages, *, name: str) -> str:
    """Return a sentence on the use of the first `count` training images only.

    Raises:
        BadData: There are fewer images.
    """
    available = len(train.images)
    if count > available:
        raise BadData(
            f"train_images is {count}, but {name} has {available} training images: give"
            f" --train-images {available}, or fewer, which wins over a preset and a file"
        )
    text = f"the first {count} training images are used"
    if words := lacking(train.labels, count):
        text += f", which are {words}"
    return text
