"""The inputs of the command line: image files, folders and arrays."""

import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae.errors import InvalidInput

__all__ = [
    "ARRAY_SUFFIXES",
    "IMAGE_SUFFIXES",
    "ImageSource",
    "describe_left_out",
    "read_array",
    "read_images",
]

_TWICE = re.compile(r"^(.+): \1: ", re.DOTALL)
_INDEX = re.compile(r"\bfiles\[(\d+)\]")
ARRAY_SUFFIXES = (".npy", ".npz")
# A longer suffix is usually a part of the name, not a kind of file.
_MAX_SUFFIX_LETTERS = 8
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Return the numbers of entries that were left out, in words."""
    return f"left out: {', '.join(f'{number} {kind}' for kind, number in left_out.items())}"


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Images to send, with a name per row: its path, or its index in the array.

    Attributes:
        left_out: Number of files that were left out, by their kind.
    """

    images: NDArray[Any] | list[Path]
    names: list[str]
    left_out: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Replace indices by file names in the errors of this block."""
        try:
            yield
        except InvalidInput as error:
            text = _INDEX.sub(lambda found: self.names[int(found[1])], error.message)
            # The client names the path behind its index.
            text = _TWICE.sub(r"\1: ", text)
            raise InvalidInput(text, code=error.code, request_id=error.request_id) from None


def read_images(paths: Sequence[Path]) -> ImageSource:
    """Read one array file, or list image files. A folder stands for its files at any depth, sorted.

    Raises:
        InvalidInput: A path does not exist or is no regular file, a folder has no images, or an array is not
            the only path.
    """
    if any(path.suffix.lower() in ARRAY_SUFFIXES for path in paths):
        if len(paths) > 1:
            raise InvalidInput("give either one .npy or .npz file, or image files and folders")
        array = read_array(paths[0], keys=("images",))
        return ImageSource(array, [str(row) for row in range(len(array) if array.ndim else 0)])
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in paths:
        if path.is_dir():
            found, others = _find_images(path)
            if not found:
                text = f"no images ({', '.join(IMAGE_SUFFIXES)}) in {path}"
                raise InvalidInput(f"{text}; {describe_left_out(others)}" if others else text)
            files += found
            left_out.update(others)
        elif path.is_file():
            files.append(path)
        elif path.exists():
            raise InvalidInput(f"{path} is not a regular file")
        else:
            raise InvalidInput(f"{path} does not exist{' (a broken link)' if path.is_symlink() else ''}")
    return ImageSource(files, [str(file) for file in files], dict(left_out))


def _find_images(folder: Path) -> tuple[list[Path], dict[str, int]]:
    """Return the image files at any depth, sorted, and the number of other entries by their kind.

    Links to folders and names that start with a dot are left out, as in bulk embedding.
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
    return sorted(found), dict(sorted(others.items(), key=lambda item: (-item[1], item[0])))


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


def read_array(path: Path, *, keys: Sequence[str]) -> NDArray[Any]:
    """Return the array in a `.npy` file. In a `.npz` file, it is the first of `keys` or the only array.

    Raises:
        InvalidInput: The file cannot be read, or has several arrays and none of `keys`.
    """
    try:
        if path.exists() and not path.is_file():
            raise InvalidInput(f"{path} is not a regular file")
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                # Mapped, so that only the rows in flight are read into memory.
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                assert isinstance(array, np.ndarray)
                return array
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                names = stored.files
                chosen = next((key for key in keys if key in names), None)
                if chosen is None and len(names) == 1:
                    chosen = names[0]
                if chosen is None:
                    raise InvalidInput(
                        f"{path} has the arrays {names}; one must be named {' or '.join(keys)}"
                    )
                return np.asarray(stored[chosen])
    except FileNotFoundError:
        raise InvalidInput(f"{path} does not exist") from None
    except InvalidInput:
        raise
    except (OSError, ValueError, EOFError, KeyError, MemoryError, SyntaxError, TypeError, OverflowError,
            NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:  # fmt: skip
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidInput(f"{path} is not a readable array: {reason}") from None
