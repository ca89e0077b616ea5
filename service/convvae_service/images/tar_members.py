"""The regular files in a tar archive, one after the other, without reading their contents.

The headers that archives of images usually have are read here, which takes a quarter of the time of tarfile.
From the first header of another kind on, such as one with a long name, tarfile reads the rest.
"""

import struct
import sys
import tarfile
import zlib
from collections.abc import Generator
from contextlib import closing
from itertools import takewhile
from typing import Any, NamedTuple

from convvae_service.images.open_file import OpenFile
from convvae_service.images.source import BadSource, SourceChanged
from convvae_service.printable import printable

__all__ = ["TarMember", "tar_members"]

_BLOCK = 512
_CHUNK = 1 << 18
_ADLER = 65521
# Name, size, checksum, kind, magic and prefix of a header.
_HEADER = struct.Struct("100s 24x 12s 12x 8s c 100x 6s 82x 155s 12x")
_KINDS = frozenset({b"0", b"\0", b"5"})
_ENCODING = sys.getfilesystemencoding()


class TarMember(NamedTuple):
    """A member: its name, whether it is a regular file, and where its contents are.

    Attributes:
        name: Its name.
        is_file: Whether it is a regular file.
        start: The first byte of its contents in the archive.
        size: The bytes of its contents.
        pieces: Offset and size of each piece of a file with holes. The archive has them one after the other.
    """

    name: str
    is_file: bool
    start: int
    size: int
    pieces: tuple[tuple[int, int], ...] = ()


def tar_members(file: OpenFile, name: str, *, with_links: bool = True) -> Generator[TarMember, None, None]:
    """Yield the members of an archive, in order, but no folders.

    Args:
        file: The archive.
        name: Its name in messages.
        with_links: Whether a hard link is the file that it links to. Without, it is no regular file.

    Raises:
        BadSource: It is no tar archive, damaged or truncated.
        SourceChanged: It was truncated while it is read.
    """
    reader = _Blocks(file)
    size = file.size
    position, has_end = 0, False
    if not size:
        raise BadSource(f"{name} is empty")
    while position < size:
        block = reader.at(position)
        if len(block) < min(_BLOCK, size - position):
            raise _shorter(name)
        member = _plain_member(block, position)
        has_end = member is None and not any(block)
        if member is not None:
            position = member.start + -(-member.size // _BLOCK) * _BLOCK
            if position > size:
                _check_end(member, size, name)
            if member.name:
                yield member
        elif has_end:
            # Zeros end an archive. Another one may follow, if archives were joined.
            position = _after_zeros(file, position)
        else:
            try:
                position = yield from _other_members(file, name, position, size, with_links=with_links)
            except BadSource:
                if file.size < size:
                    raise _shorter(name) from None
                raise
    if not has_end:
        raise BadSource(f"{name} is truncated: the zeros at the end of an archive are missing")


def _shorter(name: str) -> SourceChanged:
    return SourceChanged(f"{name} is shorter now than when it was opened")


def _after_zeros(file: OpenFile, position: int) -> int:
    """Return the position of the next block that is not zero, or the end of the file."""
    while piece := file.read(_CHUNK, position):
        if rest := piece.lstrip(b"\0"):
            return position + (len(piece) - len(rest)) // _BLOCK * _BLOCK
        position += len(piece)
    return position


class _Blocks:
    """Blocks of 512 bytes at any position of a file, read in larger pieces."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._start = 0
        self._piece = b""

    def at(self, position: int) -> bytes:
        """Return the block at a position; it is shorter at the end of the file."""
        offset = position - self._start
        if not 0 <= offset <= len(self._piece) - _BLOCK:
            # Small members follow each other closely. A large one is passed over.
            self._start, offset = position, 0
            self._piece = self._file.read(_CHUNK if self._near(position) else _BLOCK, position)
        return self._piece[offset : offset + _BLOCK]

    def _near(self, position: int) -> bool:
        return position - self._start <= 2 * _CHUNK


def _plain_member(block: bytes, position: int) -> TarMember | None:
    """Return the member of a usual header, or None. A folder has no name."""
    if len(block) < _BLOCK:
        return None
    name, size_text, checksum_text, kind, magic, prefix = _HEADER.unpack(block)
    # A number that is not octal begins with a byte above 127.
    if kind not in _KINDS or size_text[0] > 127:
        return None
    try:
        size = int(size_text.rstrip(b"\0 ") or b"0", 8)
        checksum = int(checksum_text.rstrip(b"\0 "), 8)
    except ValueError:
        return None
    # The checksum is the sum of the bytes, with blanks in its own place. The lower half of an Adler-32 is
    # a sum of bytes too, and takes a tenth of the time of Python's.
    total = (zlib.adler32(block) & 0xFFFF) - (zlib.adler32(checksum_text) & 0xFFFF) + 8 * 0x20
    if (total - checksum) % _ADLER or size < 0:
        return None
    name = name.partition(b"\0")[0]
    if magic == b"ustar\0" and prefix[0]:
        name = prefix.partition(b"\0")[0] + b"/" + name
    if kind == b"5" or name[-1:] == b"/":
        return TarMember("", False, position + _BLOCK, 0)
    return TarMember(name.decode(_ENCODING, "surrogateescape"), True, position + _BLOCK, size)


def _other_members(
    file: OpenFile, name: str, position: int, size: int, *, with_links: bool
) -> Generator[TarMember, None, int]:
    """Yield the members from a position on, and return the position of the zeros after them."""
    files: dict[str, TarMember] | None = None
    # A reader of its own: the position of the file belongs to all who read it.
    with open(file.handle, "rb", closefd=False) as reader:
        reader.seek(position)
        try:
            archive: Any = tarfile.open(fileobj=reader, mode="r:", errors="surrogateescape")  # noqa: SIM115
            while (info := archive.next()) is not None:
                archive.members.clear()  # tarfile keeps all of them
                if info.isdir():
                    continue
                pieces: Any = info.sparse or ()
                member = TarMember(info.name, info.isreg(), info.offset_data, info.size, tuple(pieces))
                _check_end(member, size, name)
                if with_links and info.islnk():
                    if files is None:  # few archives have hard links, so the others keep no names
                        files = _files_before(file, name, info.offset)
                    member = files.get(info.linkname, member)._replace(name=info.name)
                if files is not None and member.is_file:
                    files[member.name] = member
                yield member
            # tarfile takes a header that it cannot read for the end of the archive.
            if any(file.read(_BLOCK, archive.offset)):
                raise BadSource(f"{name} is damaged or truncated: no header at byte {archive.offset}")
            return int(archive.offset)
        except BadSource:
            raise
        except tarfile.ReadError as error:
            if not position and (b"ustar" not in file.read(_BLOCK, 0) or "truncated" not in str(error)):
                raise BadSource(f"{name} is not a tar archive, or is compressed: decompress it") from None
            raise BadSource(f"{name} is damaged or truncated: {error} after byte {position}") from None
        except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
            raise BadSource(f"{name} is damaged: {str(error)[:200]}") from None


def _files_before(file: OpenFile, name: str, position: int) -> dict[str, TarMember]:
    """Return the regular files that an archive has before a position, by name."""
    with closing(tar_members(file, name, with_links=False)) as members:
        before = takewhile(lambda member: member.start <= position, members)
        return {member.name: member for member in before if member.is_file}


def _check_end(member: TarMember, size: int, name: str) -> None:
    if member.size < 0:
        raise BadSource(f"{name} is damaged: the header before byte {member.start} has a negative size")
    end = member.start + (sum(count for _, count in member.pieces) if member.pieces else member.size)
    if member.is_file and end > size:
        raise BadSource(
            f"{name} is truncated: {printable(member.name)} ends at byte {end}, but the file has {size} bytes"
        )
    for offset, count in member.pieces:
        if offset < 0 or count < 0 or offset + count > member.size:
            raise BadSource(f"{name} is damaged: a piece of {printable(member.name)} is outside of the file")
