"""Folders whose first level names the parts of a data set, such as train, val and test."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from convvae_service.images import printable
from convvae_trainer.errors import BadData

__all__ = ["FolderLayout", "Part", "folder_layout", "part_named"]

Part = Literal["train", "validation", "test"]

_NAMES: Mapping[Part, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval"),
    "validation": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "heldout", "holdout"),
}
_PARTS: dict[str, Part] = {name: part for part, names in _NAMES.items() for name in names}
# Words that say nothing about the part, as in `train_images`, `val2017` and `TestSet`.
_FILLERS = r"(?:images?|imgs?|pictures?|photos?|data|sets?|split|part|folder)"
_MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderLayout:
    """How the first level of a folder is read: as parts of a data set, or else as classes.

    Attributes:
        parts: The part that each folder of the first level is; empty if they are classes.
        note: A sentence on the parts, or "".
        hints: Sentences on a folder of the first level that could be meant in another way.
    """

    parts: Mapping[str, Part] = field(default_factory=dict)
    note: str = ""
    hints: Sequence[str] = ()


def part_named(folder: str) -> Part | None:
    """Return the part that a folder's name stands for, whatever its case, digits and signs; None: no part."""
    word = re.sub(r"[^a-z]", "", folder.lower())
    return _PARTS.get(word) or _PARTS.get(re.sub(rf"^{_FILLERS}|{_FILLERS}$", "", word))


def folder_layout(folder: str, names: Sequence[str], *, needs_train: bool) -> FolderLayout:
    """Return how the first level of a folder is read.

    Args:
        folder: The folder, as messages name it.
        names: The paths of its images, relative to it, with `/` as separator.
        needs_train: Whether a model is to be trained, not only tested.

    Raises:
        BadData: Parts and other folders are mixed, two folders are one part, or there is no part to train on.
    """
    first_level = sorted({name.partition("/")[0] for name in names if "/" in name})
    # The training part first, then validation and test.
    found = {name: part for part in _NAMES for name in first_level if part_named(name) == part}
    others = [name for name in first_level if name not in found]
    if any("/" not in name for name in names):
        others.append("images in no folder")
    if not found:
        return FolderLayout()
    if others:
        return _mixed(folder, found, others)
    _check_one_folder_each(folder, found)
    if needs_train and "train" not in found.values():
        raise BadData(
            f"{folder} holds {_and(found)}, and no folder of training images: add a folder named train, or"
            f" give --dataset {folder}/{next(iter(found))} to train on that one"
        )
    words = f"folders {_and(found)} are" if len(found) > 1 else f"folder {_and(found)} is"
    return FolderLayout(
        parts=found, note=f"its {words} read as {'its parts' if len(found) > 1 else 'a part'}"
    )


def _mixed(folder: str, found: Mapping[str, Part], others: Sequence[str]) -> FolderLayout:
    """Return the layout of classes, one of which is named train, as the vehicle is; refuse other mixtures."""
    if set(found.values()) == {"train"} and len(found) == 1:
        return FolderLayout(hints=(f"the folder {_and(found)} is read as a class, beside {_and(others)}",))
    flags = {"train": "--dataset", "validation": "--validation-dataset", "test": "--test-dataset"}
    given = " ".join(f"{flags[part]} {folder}/{printable(name)}" for name, part in found.items())
    raise BadData(
        f"{folder} holds {_and(found)}, named as the parts of a data set, beside {_and(others)}: move these"
        f" away, or name the parts: {given}"
    )


def _check_one_folder_each(folder: str, found: Mapping[str, Part]) -> None:
    for part in _NAMES:
        of_part = [name for name, its_part in found.items() if its_part == part]
        if len(of_part) > 1:
            raise BadData(
                f"{folder} holds {_and(of_part)}, which all name the {part} part: keep one of them there, or"
                " name the parts with --dataset, --validation-dataset and --test-dataset"
            )


def _and(names: Sequence[str] | Mapping[str, Part]) -> str:
    """Return names as "a, b and c", the first few of many."""
    words = list(map(printable, names))
    if len(words) > _MAX_NAMED:
        words = [*words[:_MAX_NAMED], f"{len(words) - _MAX_NAMED} more"]
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
