"""The inputs of the command line: image files, folders and arrays."""

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae.errors import InvalidInput
from convvae.inputs.folders import images_in

__all__ = [
    "ARRAY_SUFFIXES",
    "ImageSource",
    "read_array",
    "read_images",
]

_TWICE = re.compile(r"^(.+): \1: ", re.DOTALL)
_INDEX = re.compile(r"\bfiles\[(\d+)\]")
ARRAY_SUFFIXES = (".npy", ".npz")


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
            found, others = images_in(path)
            files += found
            left_out.update(others)
        elif path.is_file():
            files.append(path)
        elif path.exists():
            raise InvalidInput(f"{path} is not a regular file")
        else:
            raise InvalidInput(f"{path} does not exist{' (a broken link)' if path.is_symlink() else ''}")
    return ImageSource(files, [str(file) for file in files], dict(left_out))


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
