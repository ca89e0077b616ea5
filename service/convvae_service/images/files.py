"""The image files of a folder: the same ones, in the same order, in training and in bulk embedding."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

__all__ = ["IMAGE_SUFFIXES", "image_files"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def image_files(folder: Path) -> list[str]:
    """Return the paths of JPEG, PNG and WebP files below `folder`, at any depth, sorted, with `/` between.

    Names that start with a dot are left out, and links to folders are not followed.

    Raises:
        OSError: A folder cannot be listed; its `filename` is that folder.
    """
    return sorted(_walk(os.fspath(folder)))


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(parent, folder)
        prefix = "" if below == "." else f"{below}/"
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield prefix + name


def _refuse(error: OSError) -> NoReturn:
    raise error
