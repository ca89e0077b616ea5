"""The image files in a folder, with the same rules for training and for bulk embedding."""

import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from convvae_service.images.decode import DEFAULT_MAX_PIXELS, most_decoding_bytes
from convvae_service.images.header import InvalidImage, TooManyPixels
from convvae_service.printable import printable

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFiles",
    "LeftOut",
    "check_file_size",
    "file_kind",
    "image_files",
    "left_out_of",
    "read_file",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")
_MAX_NAMED = 3
# A longer suffix is usually a part of the name, not a kind of file.
_MAX_SUFFIX_LETTERS = 8
# Rarer suffixes are counted together.
_MAX_SUFFIXES = 10
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The entries of a folder that are not read. As a string: their numbers in words, or "".

    Attributes:
        counts: Number of entries by kind: `hidden`, `links to folders`, `not regular files`, and suffixes
            such as `.tif`.
        irregular: The names of those that are not regular files.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    irregular: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.counts:
            return ""
        parts = [f"{number} {kind}" for kind, number in self.counts.items()]
        text = f"left out: {', '.join(parts)}"
        if self.irregular:
            names = ", ".join(map(printable, self.irregular[:_MAX_NAMED]))
            text += f" ({names}{', …' if len(self.irregular) > _MAX_NAMED else ''})"
        return text


class ImageFiles(NamedTuple):
    """The image files in a folder, as sorted paths relative to it with `/` as separator; and the others."""

    names: list[str]
    left_out: LeftOut


def image_files(folder: Path) -> ImageFiles:
    """Return the JPEG, PNG and WebP files in `folder`, at any depth, and the number of others.

    Names that start with a dot are left out. Links to files are read, and links to folders are left out. A
    FIFO, a socket or a device is never opened, since a read might wait for ever.

    Raises:
        OSError: A folder cannot be listed. The error's `filename` is that folder.
    """
    names: list[str] = []
    irregular: list[str] = []
    left_out: Counter[str] = Counter()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(folder, below)) as entries:  # noqa: PTH118 - a Path is slower
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                match _kind(entry):
                    case "folder":
                        waiting.append(name)
                    case "image":
                        names.append(name)
                    case kind:
                        left_out[kind] += 1
                        if kind == "not regular files":
                            irregular.append(name)
    return ImageFiles(sorted(names), left_out_of(left_out, irregular))


def _kind(entry: "os.DirEntry[str]") -> str:
    """Return "folder" or "image", or the name under which the entry is counted."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    try:
        if entry.is_dir():
            return "links to folders"
        is_file = entry.is_file()
    except OSError:  # a link to itself
        is_file = False
    # A link that leads nowhere counts as the file that is missing: it is an error, if it is an image.
    if not is_file and not _leads_nowhere(entry):
        return "not regular files"
    return file_kind(entry.name)


def file_kind(name: str) -> str:
    """Return "hidden" or "image", or the name under which a file that is not read is counted, by its name."""
    if name.startswith("."):
        return "hidden"
    if name.lower().endswith(IMAGE_SUFFIXES):
        return "image"
    _, dot, ending = name.rpartition(".")
    suffix = (dot + ending).lower() if dot else ""
    is_kind = 1 < len(suffix) <= _MAX_SUFFIX_LETTERS and suffix[1:].isalnum()
    return suffix if is_kind else "of other kinds"


def _leads_nowhere(entry: "os.DirEntry[str]") -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110 - as above


def left_out_of(counts: Mapping[str, int], irregular: Sequence[str] = ()) -> LeftOut:
    """Return the entries that are not read, by kind: the largest number first, with rare suffixes as one."""
    return LeftOut(_summed(Counter(counts)), tuple(sorted(irregular)))


def _summed(left_out: "Counter[str]") -> dict[str, int]:
    kinds = sorted(left_out, key=lambda kind: (-left_out[kind], kind))
    rare = [kind for kind in kinds if kind.startswith(".")][_MAX_SUFFIXES:]
    counts = {kind: left_out[kind] for kind in kinds if kind not in rare and kind != "of other kinds"}
    if others := left_out["of other kinds"] + sum(left_out[kind] for kind in rare):
        counts["of other kinds"] = others
    return counts


def read_file(path: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """Return the contents of a regular file. The call does not wait for a writer of a FIFO.

    Raises:
        InvalidImage: It cannot be read, or is not a regular file.
        TooManyPixels: It has more bytes than images of `max_pixels` have.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if os.path.islink(path):  # noqa: PTH114 - a Path is slower
            raise InvalidImage("it is a link to a file that does not exist") from None
        raise InvalidImage("cannot be read: No such file or directory") from None
    except OSError as error:
        raise InvalidImage(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise InvalidImage("cannot be read: its name has a NUL byte") from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidImage("it is not a regular file")
        check_file_size(found.st_size, max_pixels=max_pixels)
        return _contents(handle, found.st_size)
    except OSError as error:
        raise InvalidImage(f"cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)


def check_file_size(num_bytes: int, *, max_pixels: int) -> None:
    """Raise `TooManyPixels` if a file has more bytes than images of `max_pixels` have. Nobody reads it."""
    most = most_decoding_bytes(max_pixels)
    if num_bytes > most:
        raise TooManyPixels(
            f"{num_bytes:,} bytes are more than the limit of {most:,} for {max_pixels} pixels"
        )


def _contents(handle: int, size: int) -> bytes:
    """Return the rest of a file. It usually has `size` bytes, and one more is asked for, to know the end."""
    data = os.read(handle, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while part := os.read(handle, _READ_BYTES):
        parts.append(part)
    return b"".join(parts)
