"""The place of a source: a path of this machine, or an address of a file system that pyarrow opens."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from convvae_service.images.address import FAILURES, is_address, open_address, shown_address
from convvae_service.images.files import check_file_size, read_file
from convvae_service.images.header import InvalidImage
from convvae_service.images.open_file import OpenFile
from convvae_service.images.packages import import_package
from convvae_service.images.source import BadSource
from convvae_service.printable import printable

__all__ = ["FileState", "Location", "first_line", "open_location", "read_place"]

_COPY_BYTES = 1 << 20


class FileState(NamedTuple):
    """Size in bytes and time of change of a file. Another state means other contents."""

    size: int
    changed_ns: int

    def __str__(self) -> str:
        return f"{self.size}-{self.changed_ns}"


class Location:
    """A file or folder.

    Attributes:
        text: The path or address as it was given.
        path: The path, if it is on this machine.
    """

    def __init__(self, text: str, path: Path | None, system: Any = None, key: str = "") -> None:
        """Use `open_location` instead."""
        self.text = text
        self.path = path
        self._system = system
        self._key = key

    @property
    def name(self) -> str:
        """The last part of the path, with characters that a terminal can show."""
        if self.path is None:
            return printable(PurePosixPath(self._key).name or self._key)
        return printable(self.path.resolve().name if self.path.name in ("", ".", "..") else self.path.name)

    @property
    def place(self) -> str:
        """The same text for each way to write the path or address."""
        return str(self.path.resolve()) if self.path is not None else self._key

    @property
    def suffix(self) -> str:
        """The suffix of the name in lower case."""
        return PurePosixPath(self._key if self.path is None else self.path.name).suffix.lower()

    def is_folder(self) -> bool:
        """Return whether it is a folder."""
        return self.path.is_dir() if self.path is not None else self._info().type.name == "Directory"

    def is_file(self) -> bool:
        """Return whether it is a regular file."""
        return self.path.is_file() if self.path is not None else self._info().type.name == "File"

    def exists(self) -> bool:
        """Return whether there is anything.

        Raises:
            BadSource: It cannot be looked for, such as in a folder that this user may not enter.
        """
        if self.path is None:
            return bool(self._info().type.name != "NotFound")
        try:
            return self.path.exists()
        except OSError as error:
            raise BadSource(f"source '{shown_address(self.text)}' cannot be read: {error.strerror}") from None

    def state(self) -> FileState:
        """Return the state of the file.

        Raises:
            BadSource: It cannot be found any more.
        """
        if self.path is None:
            info = self._info()
            return FileState(info.size or 0, info.mtime_ns or 0)
        try:
            found = self.path.stat()
        except OSError as error:
            raise BadSource(f"{self.name} cannot be read: {error.strerror}") from None
        return FileState(found.st_size, found.st_mtime_ns)

    def read(self, *, max_pixels: int) -> bytes:
        """Return the contents of an image file.

        Raises:
            InvalidImage: It cannot be read, or has more bytes than images of `max_pixels` have.
        """
        if self.path is not None:
            return read_file(str(self.path), max_pixels=max_pixels)
        try:
            with self._system.open_input_file(self._key) as file:
                check_file_size(file.size(), max_pixels=max_pixels)
                return bytes(file.read())
        except InvalidImage:
            raise
        except FAILURES as error:
            raise InvalidImage(f"cannot be read: {first_line(error)}") from None

    def below(self, name: str) -> "Location":
        """Return the location of a name relative to this folder."""
        if self.path is not None:
            return Location(f"{self.text}/{name}", self.path / name)
        return Location(f"{self.text}/{name}", None, self._system, f"{self._key.rstrip('/')}/{name}")

    def beside(self, name: str) -> "Location":
        """Return the location of a name relative to the folder of this file."""
        if self.path is not None:
            return Location(name, self.path.parent / name)
        return Location(name, None, self._system, str(PurePosixPath(self._key).parent / name))

    def entries(self, *, recursive: bool) -> list[tuple[str, FileState]]:
        """Return the regular files in a remote folder, as names relative to it, and their states."""
        files = import_package("pyarrow.fs")
        base = self._key.rstrip("/")
        try:
            found = self._system.get_file_info(files.FileSelector(base, recursive=recursive))
        except FAILURES as error:
            raise BadSource(f"{shown_address(self.text)} cannot be listed: {first_line(error)}") from None
        return sorted(
            (info.path[len(base) + 1 :], FileState(info.size or 0, info.mtime_ns or 0))
            for info in found
            if info.type == files.FileType.File
        )

    def open_arrow(self) -> Any:
        """Return the file as one that pyarrow reads at random."""
        arrow = import_package("pyarrow")
        try:
            if self.path is None:
                return self._system.open_input_file(self._key)
            # A file of Arrow's own takes no name that is not UTF-8.
            return arrow.PythonFile(self.path.open("rb"), "r")
        except FAILURES as error:
            raise BadSource(f"{self.name} cannot be read: {first_line(error)}") from None

    def open_copy(self) -> OpenFile:
        """Return the file, or an unnamed temporary copy of a remote one, which can be read at random.

        Raises:
            BadSource: It cannot be read or copied.
        """
        try:
            if self.path is not None:
                return OpenFile(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
            with tempfile.TemporaryFile() as copy:
                self._copy_to(copy)
                return OpenFile(os.dup(copy.fileno()))
        except FAILURES as error:
            raise BadSource(f"{self.name} cannot be read: {first_line(error)}") from None

    def _copy_to(self, copy: IO[bytes]) -> None:
        with self._system.open_input_stream(self._key) as stream:
            while block := stream.read(_COPY_BYTES):
                copy.write(block)
        copy.flush()

    @contextmanager
    def local_path(self) -> Iterator[Path]:
        """Yield the path of the file, or of a copy that is removed at the end of the block."""
        if self.path is not None:
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, PurePosixPath(self._key).name)
            try:
                with path.open("wb") as copy:
                    self._copy_to(copy)
            except FAILURES as error:
                raise BadSource(f"{self.name} cannot be read: {first_line(error)}") from None
            yield path

    def _info(self) -> Any:
        try:
            return self._system.get_file_info(self._key)
        except FAILURES as error:
            raise BadSource(f"{shown_address(self.text)} cannot be read: {first_line(error)}") from None


def open_location(text: str) -> Location:
    """Return the location of a path, or of an address such as `s3://bucket/key`.

    Raises:
        BadSource: pyarrow opens no such address, or is not installed.
    """
    if not is_address(text):
        return Location(text, Path(text))
    system, key = open_address(text)
    if isinstance(system, import_package("pyarrow.fs").LocalFileSystem):
        return Location(text, Path(key))
    return Location(text, None, system, key)


def read_place(text: str, *, beside: Location | None = None, max_pixels: int) -> bytes:
    """Return the contents of the image file at a path or address.

    Args:
        text: The path or address.
        beside: The file whose folder a path is relative to. None takes the current folder.
        max_pixels: Largest width x height of an image file.

    Raises:
        InvalidImage: It cannot be read.
    """
    is_relative = not is_address(text) and not text.startswith("/")
    try:
        place = beside.beside(text) if beside is not None and is_relative else open_location(text)
    except BadSource as error:
        raise InvalidImage(str(error)) from None
    return place.read(max_pixels=max_pixels)


def first_line(error: Exception) -> str:
    """Return the first line of an error as text for a message."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shown_address(reason.splitlines()[0][:300])
