"""The files that a search writes: checked before the work, and written whole or not at all."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.errors import BadSink, RunFailed

__all__ = ["check_out", "save_picture", "write_text", "write_whole"]


def save_picture(picture: Image.Image, out: Path) -> None:
    """Write a picture as PNG.

    Raises:
        RunFailed: The file cannot be written.
    """
    write_whole(out, lambda path: picture.save(path, "PNG"))


def write_text(out: Path, text: str) -> None:
    """Write a text as UTF-8.

    Raises:
        RunFailed: The file cannot be written.
    """
    write_whole(out, lambda path: path.write_text(text, encoding="utf-8"))


def write_whole(out: Path, write: Callable[[Path], object]) -> None:
    """Write a file that appears under its name when it is complete. A file of that name is replaced.

    Raises:
        RunFailed: The file cannot be written.
    """
    file = AtomicFile(out, overwrite=True)
    try:
        write(file.path)
        file.publish(ends_run=False)
    except OSError as error:
        raise RunFailed(f"{str(out)!r} cannot be written: {error.strerror or error}") from None
    finally:
        file.remove()


def check_out(out: Path, suffixes: Sequence[str], *, result: Path, overwrite: bool) -> None:
    """Check before any work that a file can be written.

    Args:
        out: The file.
        suffixes: What its name may end in.
        result: The result that is read. No file of it is replaced, and none is added to its folder.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        BadSink: It has another suffix, its folder is missing or not writable, it exists, or is of the result.
    """
    if out.suffix.lower() not in suffixes:
        raise BadSink(f"{str(out)!r} must end in {' or '.join(suffixes)}")
    if not out.parent.is_dir():
        raise BadSink(f"the folder of {str(out)!r} does not exist")
    if not os.access(out.parent, os.W_OK):
        raise BadSink(f"the folder of {str(out)!r} is not writable")
    if result.resolve() in (out.resolve(), out.parent.resolve()):
        raise BadSink(f"{str(out)!r} is of the result that is read: give another name")
    if out.exists() and not out.is_file():
        raise BadSink(f"{str(out)!r} is not a regular file: give another name")
    if out.exists() and not overwrite:
        raise BadSink(f"{str(out)!r} exists: give --force, or another name")
