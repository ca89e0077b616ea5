"""Classes of images: labels from the names of folders, and labels of one data set in the classes of another.

N = images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae_service.images import printable
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.errors import BadData

__all__ = ["ClassNames", "FolderLabels", "class_counts", "folder_labels", "in_classes_of"]

# The name of each label, in the order of the labels.
ClassNames = tuple[str, ...]
_MAX_NAMED = 5


class FolderLabels(NamedTuple):
    """Labels, int64 of shape (N,), and the names of the classes; None where an image is in no folder."""

    labels: NDArray[np.int64] | None
    names: ClassNames | None


def folder_labels(paths: Sequence[str]) -> FolderLabels:
    """Return the labels of images by their folders of the first level, in sorted order.

    Args:
        paths: The path of each image with `/` as separator.
    """
    folders = [path.partition("/")[0] if "/" in path else None for path in paths]
    if not folders or None in folders:
        return FolderLabels(None, None)
    names = sorted({folder for folder in folders if folder is not None})
    numbers = {name: number for number, name in enumerate(names)}
    return FolderLabels(np.array([numbers[folder] for folder in folders], np.int64), tuple(names))  # type: ignore[index]


def in_classes_of(
    train: LabelledImages,
    train_names: ClassNames | None,
    other: LabelledImages,
    other_names: ClassNames | None,
    *,
    name: str,
) -> LabelledImages:
    """Return the other images with the labels that the training images have for the same classes.

    Classes are the same if they have the same name, or the same number where one side has no names. Without
    labels on one side, the other images have none.

    Args:
        train: The training images.
        train_names: The names of their classes, if they are known.
        other: The other images.
        other_names: The names of their classes, if they are known.
        name: The other images, as the message names them.

    Raises:
        BadData: The other images have a class that the training images lack.
    """
    if train.labels is None or other.labels is None:
        return LabelledImages(other.images, None)
    if train_names is not None and other_names is not None:
        unknown = [label for label in other_names if label not in train_names]
        labels = np.array([train_names.index(label) if label in train_names else -1 for label in other_names])
        labels_N = labels[other.labels]
    else:
        labels_N = other.labels
        unknown = [str(label) for label in np.setdiff1d(labels_N, train.labels)]
    if unknown:
        more = f" and {len(unknown) - _MAX_NAMED} more" if len(unknown) > _MAX_NAMED else ""
        words = ", ".join(map(printable, unknown[:_MAX_NAMED])) + more
        raise BadData(f"{name} has classes that the training images lack: {words}")
    return LabelledImages(other.images, labels_N.astype(np.int64))


def class_counts(labels_N: NDArray[np.int64], names: ClassNames | None) -> list[tuple[str, int]]:
    """Return the name, or else the number, of each class, with its number of images."""
    labels, counts = np.unique(labels_N, return_counts=True)
    return [
        (printable(names[label]) if names is not None else str(label), int(count))
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
    ]
