"""Any torchvision data set by its name, as arrays.

torchvision itself keeps some sets (CIFAR) in pickles; it compares their checksums before it opens them.
"""

import contextlib
import difflib
import functools
import inspect
import io
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import Resize
from convvae_service.images import InvalidImage, pillow_pixels, pillow_shape
from convvae_trainer.data.arrays import to_nhwc
from convvae_trainer.data.classes import ClassNames
from convvae_trainer.data.image_stack import ImageStack
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.errors import BadData, MissingExtra

__all__ = ["SetImages", "find_set", "near_names", "read_set"]

# Names of the splits: most sets have train and test, Imagenette train and val, CelebA train and valid,
# Places365 train-standard and val.
TRAIN_SPLITS = ("train", "train-standard")
TEST_SPLITS = ("test", "val", "valid")
_NOT_NAMED_SETS = frozenset({"DatasetFolder", "FakeData", "ImageFolder", "VisionDataset"})


class SetImages(NamedTuple):
    """The images of a torchvision data set.

    Attributes:
        train: The training images.
        test: The test images, or None without a test split.
        note: A sentence on the pictures that were read in other colours than they have, or "".
        class_names: The names of the labels, if the set has them.
    """

    train: LabelledImages
    test: LabelledImages | None
    note: str
    class_names: ClassNames | None


@functools.cache
def _sets() -> dict[str, Any]:
    """Return torchvision's classes by name, in lower-case letters and digits only."""
    try:
        from torchvision import datasets
    except ImportError:
        raise MissingExtra("torchvision") from None
    except RuntimeError as error:
        # `operator torchvision::nms does not exist`: built for another torch.
        raise BadData(
            f"torchvision does not fit the installed torch ({_one_line(error)}): install a matching pair"
        ) from None
    names = [name for name in datasets.__all__ if name not in _NOT_NAMED_SETS]
    classes = {_plain(name): getattr(datasets, name) for name in names}
    return {name: cls for name, cls in classes.items() if inspect.isclass(cls)}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_set(name: str) -> Any | None:
    """Return torchvision's class for a name, whatever its case, dashes and underscores, or None."""
    return _sets().get(_plain(name))


def near_names(name: str) -> list[str]:
    """Return the names of similar data sets, the most similar first."""
    return difflib.get_close_matches(_plain(name), ["digits", *_sets()], n=3, cutoff=0.5)


def read_set(
    cls: Any,
    *,
    root: Path,
    download: bool,
    image_size: tuple[int, int] | None,
    resize: Resize,
    channels: int | None = None,
) -> SetImages:
    """Read a torchvision data set.

    Args:
        cls: The class, from `find_set`.
        root: Folder of torchvision's sets.
        download: Whether to download files that are absent.
        image_size: (height, width) to which pictures are resized.
        resize: How they are resized.
        channels: Channels of pictures: 1 (grey) or 3 (RGB). None: 3 if any picture is in colour. A set that
            holds an array keeps its channels.

    Raises:
        BadData: The files are missing or damaged, or the items are not images.
    """
    parameters = inspect.signature(cls.__init__).parameters
    # For each part, the arguments to try in this order.
    parts: list[list[dict[str, Any]]]
    if "train" in parameters:
        parts = [[{"train": True}], [{"train": False}]]
    elif "background" in parameters:
        parts = [[{"background": True}], [{"background": False}]]
    elif _is_emnist(cls):
        parts = [[{"split": "balanced", "train": True}], [{"split": "balanced", "train": False}]]
    elif "split" in parameters:
        first = ("trainval",) if parameters["split"].default == "trainval" else TRAIN_SPLITS
        parts = [[{"split": split} for split in splits] for splits in (first, TEST_SPLITS)]
    else:
        parts = [[{}]]
    if any("download" in inspect.signature(kind.__init__).parameters for kind in cls.__mro__):
        parts = [[{**arguments, "download": download} for arguments in tries] for tries in parts]
    # All parts are opened before one is read, since decoding takes minutes.
    opened = [_open_first(cls, root, tries) for tries in parts]
    read, notes = [], []
    for items, part in zip(opened, ("", "test "), strict=False):
        images, note = _images(items, cls.__name__, image_size, resize, channels)
        read.append(LabelledImages(images, _labels(items, len(images))))
        notes += [part + note] if note else []
    test = read[1] if len(read) == 2 else None
    return SetImages(read[0], test, "; ".join(notes), _class_names(opened[0], read[0].labels))


def _open_first(cls: Any, root: Path, tries: Sequence[dict[str, Any]]) -> Any:
    """Open a part with the first arguments that the set accepts."""
    errors: list[ValueError] = []
    for arguments in tries:
        try:
            return _open(cls, root, arguments)
        except ValueError as error:
            # torchvision's check of arguments starts like this. Other errors are about a file's contents.
            if not str(error).startswith("Unknown value"):
                raise _damaged(cls, root, error) from None
            errors.append(error)
    raise BadData(f"torchvision's {cls.__name__} cannot be read by its name alone: {_one_line(errors[0])}")


def _is_emnist(cls: Any) -> bool:
    return bool(cls.__name__ == "EMNIST")


def _open(cls: Any, root: Path, arguments: dict[str, Any]) -> Any:
    name = cls.__name__
    try:
        # torchvision prints "Files already downloaded and verified" and the like.
        with contextlib.redirect_stdout(io.StringIO()):
            return cls(str(root), **arguments)
    except (RuntimeError, OSError) as error:
        if arguments.get("download"):
            raise BadData(f"{name} could not be downloaded to {root.resolve()}: {_one_line(error)}") from None
        raise BadData(
            f"{name} was not found in, or is damaged in, {_searched(cls, root)} ({_one_line(error)}):"
            " --data-root names the folder that holds it, --download fetches it"
        ) from None
    except (EOFError, AssertionError, LookupError, struct.error) as error:
        raise _damaged(cls, root, error) from None
    except ImportError as error:
        raise BadData(f"torchvision's {name} needs a package that is not installed: {error.name}") from None
    except TypeError as error:
        raise BadData(f"torchvision's {name} cannot be read by its name alone: {_one_line(error)}") from None


def _damaged(cls: Any, root: Path, error: Exception) -> BadData:
    return BadData(f"{cls.__name__} is damaged in {_searched(cls, root)}: {_one_line(error) or 'bad data'}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _searched(cls: Any, root: Path) -> Path:
    """Return the folder in which torchvision looks for the files of `cls`."""
    below = getattr(cls, "base_folder", "")
    if any(base.__name__ == "MNIST" for base in cls.__mro__):
        below = f"{cls.__name__}/raw"
    return root.resolve() / (below if isinstance(below, str) else "")


def _images(
    items: Any, name: str, image_size: tuple[int, int] | None, resize: Resize, channels: int | None
) -> tuple[NDArray[np.uint8], str]:
    held = getattr(items, "data", None)
    if held is not None and isinstance(getattr(held, "shape", None), tuple):
        images = np.asarray(held)
        if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
            images = images.transpose(0, 2, 3, 1)
        return to_nhwc(images, name=name), ""
    return _decode_items(items, name, image_size, resize, channels)


def _labels(items: Any, count: int) -> NDArray[np.int64] | None:
    for attribute in ("targets", "labels", "_labels"):
        labels = getattr(items, attribute, None)
        if labels is not None and len(labels) == count:
            array = np.asarray(labels)
            if array.ndim == 1 and array.dtype.kind in "iu":
                return array.astype(np.int64)
    return None


def _class_names(items: Any, labels: NDArray[np.int64] | None) -> ClassNames | None:
    """Return the names that a set has for its labels, if there is one for each."""
    names = getattr(items, "classes", None)
    if labels is None or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if labels.min() >= 0 and labels.max() < len(names) else None


def _decode_items(
    items: Any, name: str, image_size: tuple[int, int] | None, resize: Resize, channels: int | None
) -> tuple[NDArray[np.uint8], str]:
    from PIL import Image

    if not len(items):
        raise BadData(f"torchvision's {name} is empty")
    rows = ImageStack(len(items), image_size=image_size, channels=channels)
    for number in range(len(items)):
        item = items[number]
        picture = item[0] if isinstance(item, tuple) else item
        if not isinstance(picture, Image.Image):
            raise BadData(f"torchvision's {name} holds {type(picture).__name__} items, not images")
        called = f"image {number} of {name}"
        shape = rows.next_shape(pillow_shape(picture), name=called)
        try:
            rows.add(pillow_pixels(picture, shape=shape, resize=resize))
        except InvalidImage as error:
            raise BadData(f"{called} cannot be used: {error}") from None
    return rows.images, rows.note
