"""The image files in a folder, as the client and its command line read them."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from convvae.errors import InvalidInput

__all__ = ["IMAGE_SUFFIXES", "describe_left_out", "images_in"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")
# A longer suffix is usually a part of the name, not a kind of file.
_MAX_SUFFIX_LETTERS = 8


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Return the numbers of entries that were left out, in words."""
    return f"left out: {', '.join(f'{number} {kind}' for kind, number in left_out.items())}"


def images_in(folder: Path) -> tuple[list[Path], dict[str, int]]:
    """Return the image files at any depth, sorted, and the number of other entries by their kind.

    Links to folders and names that start with a dot are left out, as in bulk embedding.

    Raises:
        InvalidInput: There are no images, or a folder cannot be listed.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    for below, folders, files in os.walk(folder, onerror=_refuse_listing):
        for name in list(folders):
            path = Path(below, name)
            if name.startswith(".") or path.is_symlink():
                folders.remove(name)
                others["hidden" if name.startswith(".") else "links to folders"] += 1
        for name in files:
            path = Path(below, name)
            kind = _kind(path)
            if kind == "image":
                found.append(path)
            else:
                others[kind] += 1
    left_out = dict(sorted(others.items(), key=lambda item: (-item[1], item[0])))
    if not found:
        text = f"no images ({', '.join(IMAGE_SUFFIXES)}) in {folder}"
        raise InvalidInput(f"{text}; {describe_left_out(left_out)}" if left_out else text)
    return sorted(found), left_out


def _refuse_listing(error: OSError) -> None:
    raise InvalidInput(f"{error.filename} cannot be listed: {error.strerror}")


def _kind(path: Path) -> str:
    """Return "image", or the name under which the entry is counted."""
    if path.name.startswith("."):
        return "hidden"
    # A link that leads nowhere counts as the file that is missing: it is an error, if it is an image.
    if not path.is_file() and path.exists():
        return "not regular files"
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return suffix if suffix[1:].isalnum() and len(suffix) <= _MAX_SUFFIX_LETTERS else "of other kinds"
