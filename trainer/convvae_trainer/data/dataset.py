"""Data sets as uint8 arrays in memory: by name or by path, split into training and test images."""

import contextlib
import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import is_array_file, resize_pixels
from convvae_trainer.data.arrays import check_size, read_array_file
from convvae_trainer.data.folder import read_folder
from convvae_trainer.data.selection import lacking
from convvae_trainer.data.torchvision_sets import Part, find_set, near_names, read_set
from convvae_trainer.errors import BadData, MissingExtra
from convvae_trainer.settings.config import Config

__all__ = [
    "Dataset",
    "hold_out_validation",
    "load_dataset",
    "load_other",
    "num_validation",
    "resize_of",
    "with_absolute_paths",
]

HELD_OUT = 0.1
SPLIT_SEED = 0
VALIDATION_SEED = 1
DIGITS_SIZE = (32, 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Images in memory, uint8 of shape (N, H, W, C); labels are int64 of shape (N,), or None.

    `split` says in words where the test images come from.
    """

    name: str
    split: str
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    train_labels: NDArray[np.int64] | None = None
    test_labels: NDArray[np.int64] | None = None

    @property
    def image(self) -> ImageShape:
        """Shape of one image."""
        height, width, channels = self.train.shape[1:]
        return ImageShape(height=height, width=width, channels=channels)

    def fingerprint(self) -> str:
        """Return a sha256 of all pixels and shapes: equal if and only if the data are."""
        digest = hashlib.sha256()
        for images in (self.train, self.test):
            digest.update(repr(images.shape).encode())
            digest.update(np.ascontiguousarray(images).data)
        return digest.hexdigest()

    def labels_fingerprint(self) -> str | None:
        """Return a sha256 of all labels; None where training or test images have none."""
        if self.train_labels is None or self.test_labels is None:
            return None
        digest = hashlib.sha256()
        for labels in (self.train_labels, self.test_labels):
            digest.update(repr(labels.shape).encode())
            digest.update(np.ascontiguousarray(labels).data)
        return digest.hexdigest()


def resize_of(config: Config) -> Resize:
    """Return how the run resizes pictures, as the manifest states it."""
    return Resize(mode=config.resize_mode, filter=config.resize_filter, library=f"Pillow {PIL.__version__}")


def load_dataset(config: Config, *, download: bool = False, channels: int | None = None) -> Dataset:
    """Load the data set that `config` names.

    Args:
        config: Says where the data are and how pictures are resized.
        download: Fetch a torchvision set that is absent.
        channels: 1 to read picture files as grey, 3 as RGB; arrays stay as they are. None: RGB if one picture
            or more is in colour.

    Raises:
        BadData: It is unknown, missing, damaged, of a size out of range, or too small to be split.
    """
    return _split(config, *_read(config, resize_of(config), download=download, channels=channels))


def _split(config: Config, train: Part, test: Part | None, note: str) -> Dataset:
    resize = resize_of(config)
    train = (_resized(train[0], config.image_size, resize), train[1])
    if test is None:
        train, test, split = _hold_out(train, name=config.dataset)
    else:
        test = (_resized(test[0], config.image_size, resize), test[1])
        split = f"the data set's own {len(test[0])} test images"
    count = config.train_images
    if count is not None:
        if count > len(train[0]):
            raise BadData(
                f"train_images is {count}, but {config.dataset} has {len(train[0])} training images: give"
                f" --train-images {len(train[0])}, or fewer, which wins over a preset and a file"
            )
        split += f"; trained on the first {count} training images"
        if words := lacking(train[1], count):
            split += f", which are {words}"
        train = (train[0][:count], None if train[1] is None else train[1][:count])
    split += f"; {note}" if note else ""
    _check(train[0], test[0], name=config.dataset)
    return Dataset(
        name=config.dataset,
        split=split,
        train=train[0],
        test=test[0],
        train_labels=train[1],
        test_labels=test[1],
    )


def load_other(
    config: Config, *, own: str, channels: int | None = None, download: bool = False
) -> tuple[Part, str, Dataset | None]:
    """Return the images and labels to evaluate of data that a run need not know, and in words which they are.

    They are the data set's own test images, or all of its images where it has none. Of data whose fingerprint
    is `own`, the run's, they are those that it held out, and the data as a whole are returned too: they were
    moved. `channels`, the run's, is as in `load_dataset`.

    Raises:
        BadData: As `load_dataset`.
    """
    resize = resize_of(config)
    train, test, note = _read(config, resize, download=download, channels=channels)
    with contextlib.suppress(BadData):
        dataset = _split(config, train, test, note)
        if dataset.fingerprint() == own:
            return (dataset.test, dataset.test_labels), dataset.split, dataset
    images, labels = test or train
    images = _resized(images, config.image_size, resize)
    check_size(*images.shape[1:3], name=config.dataset)
    split = f"all {len(images)} images" if test is None else f"the data set's own {len(images)} test images"
    return (images, labels), f"{split}; {note}" if note else split, None


def with_absolute_paths(config: Config) -> Config:
    """Return the same settings with paths that mean the same in any folder.

    Raises:
        BadData: A path starts with the home folder of an unknown user.
    """
    changes: dict[str, Any] = {"data_root": str(_expanded(config.data_root).absolute())}
    # Whether a path is there, and can be read, is for those to say who read it.
    if _by_name(config.dataset) is None and os.path.exists(path := _expanded(config.dataset)):  # noqa: PTH110
        changes["dataset"] = str(path.absolute())
    return dataclasses.replace(config, **changes)


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadData(f"{path} does not exist: there is no such user's home folder") from None


def _by_name(dataset: str) -> Any | None:
    """Return torchvision's class, or True for `digits`, where the setting is a name; else None."""
    if os.sep in dataset or is_array_file(Path(dataset)):
        return None
    return True if dataset.lower() == "digits" else find_set(dataset)


def _read(
    config: Config, resize: Resize, *, download: bool, channels: int | None
) -> tuple[Part, Part | None, str]:
    """Return (training part, test part, how pictures were recoloured, in words, or "")."""
    name, path = config.dataset, _expanded(config.dataset)
    named = _by_name(name)
    if named is True:
        return _digits(config.image_size or DIGITS_SIZE, resize), None, ""
    if named is not None:
        root = _expanded(config.data_root)
        try:
            return read_set(
                named,
                root=root,
                download=download,
                image_size=config.image_size,
                resize=resize,
                channels=channels,
            )
        except BadData as error:
            if not path.exists():
                raise
            raise BadData(f"{error}; for what is called {name} in this folder, write ./{name}") from None
    try:
        return _read_path(name, path, config.image_size, resize, channels)
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from None


def _read_path(
    name: str, path: Path, image_size: tuple[int, int] | None, resize: Resize, channels: int | None
) -> tuple[Part, Part | None, str]:
    if path.is_dir():
        images, labels, note = read_folder(path, image_size=image_size, resize=resize, channels=channels)
        return (images, labels), None, note
    if path.is_file():
        if not is_array_file(path):
            raise BadData(f"{path} is of no known kind: a folder of images, .npy, .npz or idx")
        return read_array_file(path), None, ""
    if os.sep in name or is_array_file(path):
        raise BadData(f"{path} does not exist")
    near = near_names(name)
    hint = f"did you mean {', '.join(near)}?" if near else "digits, or a torchvision set such as mnist"
    raise BadData(f"unknown data set {name!r}: {hint} (a path that does not exist is none either)")


def _digits(size: tuple[int, int], resize: Resize) -> Part:
    """Return scikit-learn's 1,797 digits, 8x8 with values 0 to 16, enlarged to `size`."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("scikit-learn") from None
    bunch = load_digits()
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return _resized(small, size, resize), bunch.target.astype(np.int64)


def _resized(images: NDArray[np.uint8], size: tuple[int, int] | None, resize: Resize) -> NDArray[np.uint8]:
    if size is None or images.shape[1:3] == size:
        return images
    shape = ImageShape(height=size[0], width=size[1], channels=images.shape[3])
    resized = np.empty((len(images), *shape.as_tuple), dtype=np.uint8)
    for row, image in enumerate(images):
        resized[row] = resize_pixels(image, shape=shape, resize=resize)
    return resized


def _hold_out(part: Part, *, name: str) -> tuple[Part, Part, str]:
    images, labels = part
    if len(images) < 3:
        raise BadData(f"{name} holds {len(images)} images: at least 3 are needed, 2 to train and 1 to test")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    num_test = max(1, round(len(images) * HELD_OUT))
    train, test = order[:-num_test], order[-num_test:]
    split = f"the last {num_test} of {len(images)} images after a shuffle by seed {SPLIT_SEED} are held out"
    if labels is None:
        return (images[train], None), (images[test], None), split
    return (images[train], labels[train]), (images[test], labels[test]), split


def hold_out_validation(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return (training images, validation images): a tenth of them, drawn by a fixed seed, validates."""
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(images))
    count = num_validation(len(images))
    return images[order[count:]], images[order[:count]]


def num_validation(count: int) -> int:
    """Return how many of `count` training images validate, where a run has such images."""
    return max(1, round(count * HELD_OUT))


def _check(train: NDArray[np.uint8], test: NDArray[np.uint8], *, name: str) -> None:
    if len(train) < 2 or len(test) < 1:
        raise BadData(f"{name} has {len(train)} training and {len(test)} test images: 2 and 1 are needed")
    if train.shape[1:] != test.shape[1:]:
        raise BadData(f"training images of {name} are {train.shape[1:]}, test images {test.shape[1:]}")
    check_size(*train.shape[1:3], name=name)
