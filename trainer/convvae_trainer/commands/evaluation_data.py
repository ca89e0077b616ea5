"""The images that a run is evaluated on: its own test images, or images of other data."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.commands.stored_run import DataLocation, StoredRun
from convvae_trainer.data.dataset import Dataset, load_dataset, load_other, without_seen
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.trained_on import Fingerprints, unseen
from convvae_trainer.errors import BadData
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.settings.config import Config

__all__ = ["OtherData", "OwnData", "check_shape", "load_evaluation_data"]

_RUN = "the run"


@dataclass(frozen=True, slots=True)
class OwnData:
    """The data that the run was trained on; its held-out images are evaluated.

    `left_out` counts the held-out images that the run was trained on all the same, such as copies. They are
    not in the data set any more. It is None if it cannot be told.
    """

    dataset: Dataset
    left_out: int | None

    @property
    def images(self) -> NDArray[np.uint8]:
        """The images to evaluate, uint8 (N, H, W, C)."""
        return self.dataset.test

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The labels of the images, (N,), or None."""
        return self.dataset.test_labels

    @property
    def split(self) -> str:
        """Words for the choice of the images."""
        return self.dataset.split


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherData:
    """Images of other data: uint8 (N, H, W, C), labels (N,) or None, and words for their choice.

    `left_out` counts the images that the run was trained on, and that are not here for that reason; it is
    None if that cannot be told.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    split: str
    left_out: int | None


def load_evaluation_data(stored: StoredRun, config: Config, data: DataLocation) -> OwnData | OtherData:
    """Load the images to evaluate, without those that the run was trained on.

    Args:
        stored: The run.
        config: The settings of the run, with the data set of this command.
        data: The data set that the command names or gives. It may still be that of the run.

    Raises:
        BadRun: The data set is not named, and the data in its place are not those of the run. Or the
            fingerprints in the run folder are damaged.
        BadData: The data set is missing or damaged, or the run was trained on all of its images.
    """
    trained_on = {_RUN: stored.folder.read_trained_on()}
    if data.name is None:
        dataset = load_dataset(config, download=data.download)
        # The held-out images of changed data may be images that the run was trained on.
        stored.folder.check_same(stored.folder.config, dataset)
        return _own_data(stored.folder, dataset, trained_on)
    own = stored.folder.record.data
    if isinstance(data.given, Dataset):
        moved = data.given if data.given.fingerprint() == own.sha256 else None
        images, labels, split = data.given.test, data.given.test_labels, data.given.split
    else:
        (images, labels), split, moved = load_other(
            config,
            own=own.sha256,
            channels=own.image.channels,
            download=data.download,
            source=data.given,
        )
    if moved is not None:
        return _own_data(stored.folder, moved, trained_on)
    found = unseen(LabelledImages(images, labels), trained_on, name=config.dataset)
    images, labels = found.data
    return OtherData(images=images, labels=labels, split=split, left_out=found.left_out[_RUN])


def _own_data(folder: RunFolder, dataset: Dataset, trained_on: Mapping[str, Fingerprints | None]) -> OwnData:
    dataset, left_out = without_seen(dataset, trained_on)
    return OwnData(dataset, folder.told_left_out(left_out[_RUN]))


def check_shape(stored: StoredRun, data: OwnData | OtherData, *, dataset: str) -> None:
    """Check that images have the height, width and channels of the run.

    Raises:
        BadData: They have others. The message calls the data set `dataset`.
    """
    expected, found = stored.folder.record.data.image, data.images.shape[1:]
    if tuple(found) != expected.as_tuple:
        raise BadData(
            f"images of {dataset} are {'x'.join(map(str, found))}, but the run needs"
            f" {expected}: give data of the same size and channels"
        )
