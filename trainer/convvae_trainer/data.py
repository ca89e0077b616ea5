"""Data sets as uint8 arrays in memory: by name or by path, split into training and test images."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.pixels import fit, is_array_file
from convvae_trainer.config import MAX_SIDE, MIN_SIDE, Config
from convvae_trainer.errors import BadData, MissingExtra
from convvae_trainer.image_arrays import read_array_file
from convvae_trainer.image_folder import read_folder
from convvae_trainer.torchvision_sets import Part, find_set, near_names, read_set

__all__ = ["Dataset", "load_dataset", "resize_of"]

HELD_OUT = 0.1
SPLIT_SEED = 0
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


def resize_of(config: Config) -> Resize:
    """Return how the run resizes pictures, as the manifest states it."""
    return Resize(mode=config.resize_mode, filter=config.resize_filter, library=f"Pillow {PIL.__version__}")


def load_dataset(config: Config, *, download: bool = False) -> Dataset:
    """Load the data set that `config` names.

    Raises:
        BadData: It is unknown, missing, damaged, of a size out of range, or too small to be split.
    """
    resize = resize_of(config)
    train, test = _read(config, resize, download=download)
    train = (_resized(train[0], config.image_size, resize), train[1])
    if test is None:
        train, test, split = _hold_out(train, name=config.dataset)
    else:
        test = (_resized(test[0], config.image_size, resize), test[1])
        split = f"the data set's own {len(test[0])} test images"
    count = config.train_images
    if count is not None:
        if count > len(train[0]):
            raise BadData(f"train_images is {count}: {config.dataset} has {len(train[0])} training images")
        train = (train[0][:count], None if train[1] is None else train[1][:count])
        split += f"; trained on the first {count} training images"
    _check(train[0], test[0], name=config.dataset)
    return Dataset(
        name=config.dataset,
        split=split,
        train=train[0],
        test=test[0],
        train_labels=train[1],
        test_labels=test[1],
    )


def _read(config: Config, resize: Resize, *, download: bool) -> tuple[Part, Part | None]:
    name, path = config.dataset, Path(config.dataset).expanduser()
    is_path = os.sep in name or is_array_file(path)
    if not is_path and name.lower() == "digits":
        return _digits(config.image_size or DIGITS_SIZE, resize), None
    if not is_path and (cls := find_set(name)) is not None:
        root = Path(config.data_root).expanduser()
        return read_set(cls, root=root, download=download, image_size=config.image_size, resize=resize)
    if path.is_dir():
        return read_folder(path, image_size=config.image_size, resize=resize), None
    if path.is_file():
        if not is_array_file(path):
            raise BadData(f"{path} is of no known kind: a folder of images, .npy, .npz or idx")
        return read_array_file(path), None
    if is_path:
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
        resized[row] = fit(image, shape=shape, resize=resize)
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


def _check(train: NDArray[np.uint8], test: NDArray[np.uint8], *, name: str) -> None:
    if len(train) < 2 or len(test) < 1:
        raise BadData(f"{name} has {len(train)} training and {len(test)} test images: 2 and 1 are needed")
    if train.shape[1:] != test.shape[1:]:
        raise BadData(f"training images of {name} are {train.shape[1:]}, test images {test.shape[1:]}")
    height, width = train.shape[1:3]
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        raise BadData(
            f"images of {name} are {height}x{width}: each side must be {MIN_SIDE} to {MAX_SIDE} pixels;"
            " --image-size resizes them"
        )
