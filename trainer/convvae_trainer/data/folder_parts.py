"""The images of a folder, divided into the parts of a data set that its first level names."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae_trainer.data.classes import ClassNames, folder_labels, in_classes_of
from convvae_trainer.data.folder_hints import folder_hints
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.split_folders import Part

__all__ = ["FolderParts", "folder_parts"]


class FolderParts(NamedTuple):
    """The images of each part, the names of the classes of the training part, and hints on its folders.

    There is always a training part. It may be empty.
    """

    images: Mapping[Part, LabelledImages]
    class_names: ClassNames | None
    hints: Sequence[str]


def folder_parts(
    folder: str, images_NHWC: NDArray[np.uint8], paths: Sequence[str], parts: Mapping[str, Part]
) -> FolderParts:
    """Return the images by their part. The folders below a part are its classes.

    Args:
        folder: The folder, as messages name it.
        images_NHWC: The images, uint8.
        paths: The path of each image, relative to the folder, sorted.
        parts: The part that each folder of the first level is.

    Raises:
        BadData: The test or validation part has a class that the training part lacks.
    """
    train = LabelledImages(images_NHWC[:0], None)
    found: dict[Part, LabelledImages] = {"train": train}
    train_names: ClassNames | None = None
    hints: Sequence[str] = ()
    # The training part first: its classes are those of the others.
    for name, part in sorted(parts.items(), key=lambda item: item[1] != "train"):
        # Paths are sorted, so a part is one slice of the array, and is not copied.
        rows = [row for row, path in enumerate(paths) if path.startswith(f"{name}/")]
        if not rows:
            continue
        below = [paths[row].removeprefix(f"{name}/") for row in rows]
        labels, names = folder_labels(below)
        data = LabelledImages(images_NHWC[rows[0] : rows[-1] + 1], labels)
        if part == "train":
            train, train_names = data, names
            hints = folder_hints(f"{folder}/{name}", below)
        elif len(train.images):
            data = in_classes_of(train, train_names, data, names, name=f"{folder}/{name}")
        else:
            train_names = names
        found[part] = data
    return FolderParts(found, train_names, hints)
