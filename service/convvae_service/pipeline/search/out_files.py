"""The files that a search writes: checked before the work, and written whole."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from convvae_service.pipeline.errors import BadSink, RunFailed

__all__ = ["check_out", "save_picture", "write_text"]


def save_picture(picture: Image.Image, out: Path) -> None:
    """Write a picture in the format of the file's suffix.

    Raises:
        RunFailed: The file cannot be written.
    """
    try:
        picture.save(out)
    except OSError as error:
        raise RunFailed(f"{str(out)!r} cannot be written: {error.strerror or error}") from None


def write_text(out: Path, text: str) -> None:
    """Write a text as UTF-8.

    Raises:
        RunFailed: The file cannot be written.
    """
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFailed(f"{str(out)!r} cannot be written: {error.strerror or error}") from None


def check_out(out: Path, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Check before any work that a file can be written.

    Raises:
        BadSink: It has another suffix, its folder is missing, or it exists.
    """
    if out.suffix not in suffixes:
        raise BadSink(f"{str(out)!r} must end in {' or '.join(suffixes)}")
    if not out.parent.is_dir():
        raise BadSink(f"the folder of {str(out)!r} does not exist")
    if out.exists() and not overwrite:
        raise BadSink(f"{str(out)!r} exists: give --force, or another name")
