"""The images that a run is evaluated on: its own test images, or images of other data."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.commands.stored_run import StoredRun
from convvae_trainer.data.dataset import Dataset, load_dataset, load_other
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config

__all__ = ["OtherData", "OwnData", "check_shape", "load_evaluation_data"]


@dataclass(frozen=True, slots=True)
class OwnData:
    """The data that the run was trained on; its held-out images are evaluated."""

    dataset: Dataset

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
    """Images that the run does not know: uint8 (N, H, W, C), labels (N,) or None, words for their choice."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    split: str


def load_evaluation_data(
    stored: StoredRun, config: Config, *, is_named: bool, download: bool
) -> OwnData | OtherData:
    """Load the images to evaluate.

    Args:
        stored: The run.
        config: The settings of the run, with the data set of this command.
        is_named: Whether the command names a data set. It may still be that of the run, in another place.
        download: Whether to download a torchvision set that is absent.

    Raises:
        BadRun: The data set is not named, and the data in its place are not those of the run.
        BadData: The data set is missing or damaged.
    """
    if not is_named:
        dataset = load_dataset(config, download=download)
        # The held-out images of changed data may be images that the run was trained on.
        stored.folder.check_same(stored.folder.config, dataset)
        return OwnData(dataset)
    own = stored.folder.record.data
    (images, labels), split, moved = load_other(
        config, own=own.sha256, channels=own.image.channels, download=download
    )
    return OtherData(images=images, labels=labels, split=split) if moved is None else OwnData(moved)


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
