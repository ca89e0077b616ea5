"""The sources of images: `digits`, a torchvision set by its name, or a folder or file by its path."""

import dataclasses
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray

from convvae_service.bundle import Resize
from convvae_service.images import is_array_file, printable
from convvae_trainer.data.arrays import read_array_file, to_nhwc
from convvae_trainer.data.classes import ClassNames, folder_labels
from convvae_trainer.data.folder import FolderImages, read_folder
from convvae_trainer.data.folder_hints import folder_hints
from convvae_trainer.data.folder_parts import folder_parts
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.torchvision_sets import find_set, near_names, read_set
from convvae_trainer.errors import BadData, MissingExtra
from convvae_trainer.settings.config import Config

__all__ = [
    "DIGITS",
    "IN_MEMORY",
    "SourceImages",
    "array_source",
    "check_source",
    "read_source",
    "resize_of",
    "with_absolute_paths",
]

DIGITS = "digits"
DIGITS_SIZE = (32, 32)
# The name of images that a program gave as an array.
IN_MEMORY = "<array>"


class SourceImages(NamedTuple):
    """The images of a source.

    Attributes:
        train: The training images: all images of a source without parts. A source that is read to be tested
            on may have none.
        test: The test part, or None without one.
        note: A sentence on pictures that were read in other colours than they have, on files that were not
            read, and on folders that are parts, or "".
        skipped: Path and fault of each file that was skipped.
        validation: The validation part, or None without one.
        class_names: The names of the labels, if they are known.
        hints: Sentences on what may have been meant in another way.
        sizes: The sizes that picture files had before they were resized, in words, if they are known.
    """

    train: LabelledImages
    test: LabelledImages | None
    note: str
    skipped: Sequence[str] = ()
    validation: LabelledImages | None = None
    class_names: ClassNames | None = None
    hints: Sequence[str] = ()
    sizes: str = ""


def resize_of(config: Config) -> Resize:
    """Return how the run resizes pictures, in the form of the manifest."""
    return Resize(
        mode=config.resize_mode,
        filter=config.resize_filter,
        # torchvision decodes the pictures of its sets itself, at full size.
        decode="full" if _torchvision_class(config.dataset) else config.resize_decode,
        library=f"Pillow {PIL.__version__}",
    )


def read_source(
    config: Config, *, download: bool, channels: int | None, needs_train: bool = True
) -> SourceImages:
    """Read the images that `config` names.

    Args:
        config: Names the source, and says how its pictures are resized.
        download: Whether to download a torchvision set that is absent.
        channels: Channels of picture files: 1 (grey) or 3 (RGB). None: 3 if any picture is in colour.
        needs_train: Whether a folder that names its parts must have one to train on.

    Raises:
        BadData: The source is unknown, missing or damaged.
    """
    name, path, resize = config.dataset, _expanded(config.dataset), resize_of(config)
    if name == IN_MEMORY:
        raise BadData("the images were an array of a program, which nothing can read again: give --dataset")
    if _is_digits(name):
        return SourceImages(_digits(config.image_size or DIGITS_SIZE, resize), None, "")
    if (torchvision_class := _torchvision_class(name)) is not None:
        try:
            found = read_set(
                torchvision_class,
                root=_expanded(config.data_root),
                download=download,
                image_size=config.image_size,
                resize=resize,
                channels=channels,
            )
        except BadData as error:
            if not path.exists():
                raise
            raise BadData(f"{error}; to read {name} in this folder instead, write ./{name}") from None
        return SourceImages(found.train, found.test, found.note, class_names=found.class_names)
    try:
        return _read_path(config, path, channels, needs_train=needs_train)
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from None


def array_source(images: NDArray[Any], labels: NDArray[Any] | None) -> SourceImages:
    """Return images in memory as a source.

    Args:
        images: (N, H, W) or (N, H, W, C) with C of 1 or 3; uint8, bool, or floating-point within 0 to 1.
        labels: Integers of shape (N,), or None.

    Raises:
        BadData: The arrays have other shapes, types or values.
    """
    pixels = to_nhwc(images, name="the array of images")
    if labels is None:
        return SourceImages(LabelledImages(pixels, None), None, "")
    classes = np.asarray(labels)
    if classes.shape != (len(pixels),) or classes.dtype.kind not in "iub":
        raise BadData(
            f"labels are {classes.dtype} of shape {classes.shape}: {len(pixels)} integers are needed, one for"
            " each image"
        )
    return SourceImages(LabelledImages(pixels, classes.astype(np.int64)), None, "")


def with_absolute_paths(config: Config) -> Config:
    """Return the settings with absolute paths, which mean the same in any folder.

    Raises:
        BadData: A path starts with the home folder of an unknown user.
    """
    changes: dict[str, Any] = {"data_root": str(_expanded(config.data_root).absolute())}
    for setting in ("dataset", "test_dataset", "validation_dataset"):
        name = getattr(config, setting)
        # A path that is missing or cannot be read stays as it is; `read_source` reports it.
        if name is not None and not _is_name(name) and os.path.exists(path := _expanded(name)):  # noqa: PTH110
            changes[setting] = str(path.absolute())
    return dataclasses.replace(config, **changes)


def check_source(dataset: str) -> None:
    """Raise `BadData` unless there is a data set of this name, or a file or folder at this path."""
    if not _is_name(dataset) and not os.path.exists(path := _expanded(dataset)):  # noqa: PTH110
        raise _absent(dataset, path)


def _is_name(dataset: str) -> bool:
    return _is_digits(dataset) or _torchvision_class(dataset) is not None


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadData(f"{path} does not exist: there is no such user's home folder") from None


def _is_digits(dataset: str) -> bool:
    return dataset.lower() == DIGITS


def _torchvision_class(dataset: str) -> Any | None:
    """Return the class that the name means, or None; a path is not a name."""
    return None if os.sep in dataset or is_array_file(Path(dataset)) else find_set(dataset)


def _read_path(config: Config, path: Path, channels: int | None, *, needs_train: bool) -> SourceImages:
    if path.is_dir():
        return _in_parts(
            path,
            read_folder(
                path,
                image_size=config.image_size,
                resize=resize_of(config),
                channels=channels,
                max_pixels=config.max_pixels,
                skip=config.on_error == "skip",
                needs_train=needs_train,
            ),
        )
    if path.is_file():
        if not is_array_file(path):
            raise BadData(f"{path} is not a data set: give a folder of images, or an .npy, .npz or idx file")
        return SourceImages(LabelledImages(*read_array_file(path)), None, "")
    if path.exists():
        raise BadData(f"{path} is not a folder and not a regular file")
    raise _absent(config.dataset, path)


def _absent(name: str, path: Path) -> BadData:
    """Return the error for what is neither a data set's name nor a path."""
    if os.sep in name or is_array_file(path):
        return BadData(f"{path} does not exist")
    near = near_names(name)
    hint = f"did you mean {', '.join(near)}?" if near else "give digits, or a torchvision set such as mnist"
    return BadData(f"unknown data set {name!r}: {hint} (and no such path exists)")


def _in_parts(folder: Path, found: FolderImages) -> SourceImages:
    """Return the images of a folder in its parts, with the labels that the folders of each part give."""
    shown = printable(str(folder))
    layout = found.layout
    if not layout.parts:
        labels, names = folder_labels(found.paths)
        return SourceImages(
            LabelledImages(found.images, labels),
            None,
            found.note,
            found.skipped,
            class_names=names,
            hints=(*layout.hints, *folder_hints(shown, found.paths)),
            sizes=found.sizes,
        )
    parts, names, hints = folder_parts(shown, found.images, found.paths, layout.parts)
    note = f"{found.note}; {layout.note}" if found.note else layout.note
    return SourceImages(
        parts["train"],
        parts.get("test"),
        note,
        found.skipped,
        validation=parts.get("validation"),
        class_names=names,
        hints=hints,
        sizes=found.sizes,
    )


def _digits(size: tuple[int, int], resize: Resize) -> LabelledImages:
    """Return scikit-learn's 1,797 digits, 8x8 with values 0 to 16, enlarged to `size`."""
    rows = _digits_table()
    small = np.rint(rows[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return LabelledImages(small, rows[:, 64].astype(np.int64)).resized(size, resize)


def _digits_table() -> NDArray[np.float64]:
    """Return scikit-learn's digits, one a row: 64 values from 0 to 16, then the label.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    # Read from its file: the import of scikit-learn takes a second, a quarter of the start of a run.
    try:
        files = metadata.files("scikit-learn") or ()
    except metadata.PackageNotFoundError:
        raise MissingExtra("scikit-learn") from None
    for file in files:
        if file.name == "digits.csv.gz":
            return np.loadtxt(str(file.locate()), delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack((bunch.data, bunch.target))
