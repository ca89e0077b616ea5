"""The files that the command line writes. Each is written under a temporary name and then renamed.

The suffix decides the form: `.npy` for one array, `.npz` for all arrays, `.png` for a grid, and no suffix for
a folder with one PNG file per row. Existing files are replaced only with --force. In a folder, files that are
not written again are kept.
"""

import contextlib
import os
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from convvae.errors import ConvvaeError, InvalidInput
from convvae.pictures import check_grid, encode_png, grid

__all__ = ["Form", "Output"]

Form = Literal["npy", "npz", "png", "folder"]


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a command, checked before the server is called."""

    path: Path
    form: Form
    force: bool

    @classmethod
    def at(cls, path: Path, *, forms: tuple[Form, ...], force: bool) -> "Output":
        """Return the output at `path`.

        Raises:
            InvalidInput: The command does not write this form, or the path exists already.
        """
        suffix = path.suffix.lower()
        known: dict[str, Form] = {".npy": "npy", ".npz": "npz", ".png": "png", "": "folder"}
        form = known.get(suffix)
        if path.is_dir():
            form = "folder"
        if form is None or form not in forms:
            known_forms = ", ".join("a folder" if form == "folder" else f".{form}" for form in forms)
            raise InvalidInput(f"cannot write {path}: give {known_forms}")
        occupied = any(path.iterdir()) if path.is_dir() else path.exists()
        if occupied and not force:
            raise InvalidInput(
                f"{path} exists{' and is not empty' if form == 'folder' else ''}; pass --force"
            )
        if form != "folder" and not path.parent.is_dir():
            raise InvalidInput(f"folder {path.parent} does not exist")
        folder = path if path.is_dir() else next(each for each in path.absolute().parents if each.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InvalidInput(f"cannot write {path}: folder {folder} is not writable")
        return cls(path, form, force)

    def check_count(self, count: int) -> None:
        """Raise `InvalidInput` if `count` images are too many for this form."""
        if self.form == "png":
            check_grid(count)

    def write_arrays(self, first: str, arrays: Mapping[str, Any]) -> None:
        """Write the array named `first` to an `.npy` file, or all arrays to an `.npz` file."""
        if self.form == "npy":
            _replace(self.path, lambda stream: np.save(stream, arrays[first], allow_pickle=False))
        else:
            _replace(self.path, lambda stream: _write_npz(stream, arrays))

    def write_images(
        self, arrays: Mapping[str, Any], *, above: Callable[[], NDArray[np.uint8]] | None = None
    ) -> None:
        """Write `arrays["images"]`, uint8 (N, H, W, C).

        Args:
            arrays: All arrays, for the forms that store them.
            above: Returns the images to show above them in a grid.
        """
        images = arrays["images"]
        if self.form in ("npy", "npz"):
            self.write_arrays("images", arrays)
        elif self.form == "png":
            picture = grid(images) if above is None else grid(above(), images)
            _replace(self.path, partial(_write_png, picture))
        else:
            self._write_folder(images)

    def _write_folder(self, images: NDArray[np.uint8]) -> None:
        digits = max(6, len(str(len(images) - 1)))
        if self.path.is_dir() and self.force:
            for row, image in enumerate(images):
                _replace(self.path / f"{row:0{digits}}.png", partial(_write_png, image))
            return
        temporary = _temporary(self.path)
        made = [temporary, *(each for each in self.path.parents if not each.exists())]
        try:
            with _naming(self.path):
                temporary.mkdir(parents=True)
                for row, image in enumerate(images):
                    (temporary / f"{row:0{digits}}.png").write_bytes(encode_png(image))
                # The rename replaces an empty folder, and fails if the folder has files by now.
                temporary.rename(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                for file in temporary.iterdir():
                    file.unlink()
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()
            raise


def _write_png(image: NDArray[np.uint8], stream: BinaryIO) -> None:
    stream.write(encode_png(image))


def _write_npz(stream: BinaryIO, arrays: Mapping[str, Any]) -> None:
    # Not numpy.savez: before numpy 2 it leaves its archive open on a full disk, which prints a traceback.
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    temporary = _temporary(path)
    try:
        # To a file that is open for reading too, numpy writes by `write`, whose error has the true reason.
        with _naming(path), temporary.open("x+b") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        with _naming(path):
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}.tmp")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the output, not its temporary file, in the errors of this block."""
    try:
        yield
    except OSError as error:
        raise ConvvaeError(f"cannot write {path}: {error.strerror or error}") from None
