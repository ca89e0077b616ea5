"""Hints on a folder whose labels or parts may be others than were meant: a folder too high was named."""

from collections.abc import Sequence

from convvae_service.images import printable
from convvae_trainer.data.split_folders import part_named

__all__ = ["folder_hints"]

_MAX_NAMED = 3


def folder_hints(folder: str, paths: Sequence[str]) -> list[str]:
    """Return sentences on labels that are all equal, and on parts of a data set that are read together.

    Args:
        folder: The folder whose first level gives the labels, as messages name it.
        paths: The paths of its images, relative to it, with `/` as separator.
    """
    labels = sorted({path.partition("/")[0] for path in paths if "/" in path})
    if not labels or any("/" not in path for path in paths):
        return []
    below = sorted({"/".join(path.split("/")[:2]) for path in paths if path.count("/") > 1})
    second_level = sorted({path.rpartition("/")[2] for path in below})
    parts = {part_named(name) for name in second_level}
    is_split = "train" in parts and len(parts - {None}) > 1
    if len(labels) > 1:
        if not is_split:
            return []
        return [f"the folders {_named(below)} look like parts of a data set, and are read together"]
    only = f"{folder}/{labels[0]}"
    if is_split:
        return [
            f"{only} holds parts of a data set, which are read together: --dataset {only} keeps them apart"
        ]
    if len(second_level) > 1:
        named = _named(second_level)
        return [f"all images have the label {printable(labels[0])}: --dataset {only} takes {named} as labels"]
    return [f"all images have the label {printable(labels[0])}, since all are in that folder"]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(map(printable, names[:_MAX_NAMED])) + more
