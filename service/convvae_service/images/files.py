"""The image files in a folder, with the same rules for training and for bulk embedding."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

__all__ = ["IMAGE_SUFFIXES", "image_files"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def image_files(folder: Path) -> list[str]:
    """Return the paths of the JPEG, PNG and WebP files in `folder`, at any depth, sorted.

    Paths are relative to `folder`, with `/` as separator. Names that start with a dot are skipped, and links
    to folders are not followed.

    Raises:
        OSError: A folder cannot be listed. The error's `filename` is that folder.
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
