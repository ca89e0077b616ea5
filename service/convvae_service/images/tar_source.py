"""A source of the image files in a tar archive, also one in the layout of WebDataset.

In this layout, files of one sample follow each other, with names that are equal up to the first dot:
`000017.jpg`, `000017.cls`, `000017.json`. The files beside the image can be kept as columns.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, NamedTuple

from convvae_service.images.decode import most_decoding_bytes
from convvae_service.images.file_decoder import FileDecoder, decode_here
from convvae_service.images.file_rows import FileRows
from convvae_service.images.files import check_file_size, file_kind
from convvae_service.images.header import InvalidImage
from convvae_service.images.location import Location
from convvae_service.images.model_input import ModelInput
from convvae_service.images.open_file import OpenFile
from convvae_service.images.packages import import_package
from convvae_service.images.source import (
    BadSource,
    ImageBatch,
    Source,
    SourceChanged,
    SourceOptions,
)
from convvae_service.images.tar_members import TarMember, tar_members
from convvae_service.printable import printable

__all__ = ["TAR_SUFFIXES", "TarShard", "open_tar_source"]

TAR_SUFFIXES = (".tar",)
# The files of a batch are read at once if they are small and close to each other.
_MAX_READ_BYTES = 4 << 20
_MAX_SIDECAR_BYTES = 1 << 20
_END_BYTES = 1024
_NONE: Mapping[str, TarMember] = {}
# Returns so many bytes from a position on.
_Reader = Callable[[int, int], bytes]


class _Sample(NamedTuple):
    """An image: where it is, the members beside it that are kept, and whether an earlier one has its id."""

    id: str
    start: int
    size: int
    sidecars: Mapping[str, TarMember]
    is_repeated: bool
    pieces: tuple[tuple[int, int], ...]


class TarShard:
    """The images of one archive; see `Shard`. The id of a row is the member's name without its suffix.

    A second image with the same id is rejected.
    """

    rows = None

    def __init__(self, location: Location, options: SourceOptions) -> None:
        self.name = location.name
        self.options = options
        self._location = location
        self.num_bytes = location.state().size

    def stamp(self) -> str:
        """Return the state of the file."""
        return str(self._location.state())

    def count(self) -> int | None:
        """Return the number of images, by the headers of a local archive. A remote one would be copied."""
        if self._location.path is None:
            return None
        with closing(self.open(0)) as cursor:
            return cursor.skip_all()

    def open(self, start: int) -> "_TarCursor":
        """Return a cursor at an image; the headers before it are read; see `Shard`."""
        cursor = _TarCursor(self, self._location.open_copy())
        try:
            cursor.skip(start)
        except BaseException:
            cursor.close()
            raise
        return cursor


class _TarCursor:
    def __init__(self, shard: TarShard, file: OpenFile) -> None:
        self._shard = shard
        self._file: OpenFile | None = file
        self.left_out: Counter[str] = Counter()
        self._samples = self._images(tar_members(file, shard.name))
        self._size = file.size
        self._passed_bytes = 0

    @property
    def fraction(self) -> float:
        """The part of the bytes that was passed."""
        return self._passed_bytes / max(1, self._size)

    def skip(self, count: int) -> None:
        """Pass over images."""
        for _ in range(count):
            if next(self._samples, None) is None:
                raise BadSource(f"{self._shard.name} has fewer than {count} images: it has changed")

    def skip_all(self) -> int:
        """Pass over all other images, and return their number."""
        return sum(1 for _ in self._samples)

    def take(self, count: int) -> "_TarRows | None":
        """Return the next images; see `Cursor`."""
        assert self._file is not None
        samples = list(islice(self._samples, count))
        return _TarRows(self._shard, self._file, samples) if samples else None

    def close(self) -> None:
        """Release the file. It is closed when its last rows are released."""
        self._samples.close()
        self._file = None

    def _images(self, members: Iterator[TarMember]) -> "Generator[_Sample, None, None]":
        ids: set[str] = set()
        for image, sidecars in (
            self._with_sidecars(members) if self._shard.options.keep else zip(members, repeat(_NONE))
        ):
            kind = _kind(image)
            if kind != "image":
                self.left_out[kind] += 1
                continue
            if image.start > self._passed_bytes:  # a hard link leads back
                self._passed_bytes = image.start
            row_id = image.name.removeprefix("./").rpartition(".")[0]
            yield _Sample(row_id, image.start, image.size, sidecars, row_id in ids, image.pieces)
            ids.add(row_id)

    def _with_sidecars(
        self, members: Iterator[TarMember]
    ) -> Iterator[tuple[TarMember, Mapping[str, TarMember]]]:
        """Yield each member that is not kept as a column, with those beside it that are."""
        for group in _grouped(members):
            has_image = any(_kind(member) == "image" for member in group)
            sidecars = self._sidecars(group) if has_image else {}
            yield from ((member, sidecars) for member in group if member not in sidecars.values())

    def _sidecars(self, group: list[TarMember]) -> dict[str, TarMember]:
        ends = {_ending(member): member for member in group if member.is_file}
        return {name: ends[end] for name in self._shard.options.keep if (end := name.lower()) in ends}


@dataclass(frozen=True, slots=True)
class _TarRows:
    shard: TarShard
    file: OpenFile
    samples: list[_Sample]

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, model_input: ModelInput, decode: FileDecoder = decode_here) -> ImageBatch:
        """Decode the images; see `UndecodedRows`."""
        read, samples, options = self._reader(), self.samples, self.shard.options
        kept: dict[str, list[int | str | None]] = {name: [None] * len(samples) for name in options.keep}
        most = most_decoding_bytes(options.max_pixels)

        def content(index: int) -> bytes:
            sample = samples[index]
            if sample.is_repeated:
                raise InvalidImage("duplicate id: an earlier image of this archive has it")
            for name, member in sample.sidecars.items():
                kept[name][index] = _value(name, member, read)
            if sample.size > most:
                check_file_size(sample.size, max_pixels=options.max_pixels)
            if sample.pieces:
                return self._read_pieces(sample)
            return read(sample.size, sample.start)

        ids = [sample.id for sample in samples]
        return FileRows(ids, content, options.max_pixels, kept).read(model_input, decode)

    def _reader(self) -> _Reader:
        """Return a function that reads a member: from one read of all of them, if this is worth it."""
        first, last = self.samples[0].start, self.samples[-1]
        span = last.start + last.size - first
        num_bytes = sum(sample.size for sample in self.samples)
        # A hard link may lead back, and a file with holes may be longer than the archive.
        if not 0 < span <= min(_MAX_READ_BYTES, 2 * num_bytes + (64 << 10)) or last.pieces:
            return self._read
        whole = self._read(span, first)

        def part(size: int, start: int) -> bytes:
            place = start - first
            if place < 0 or place + size > span:  # a sidecar beside the first or last image
                return self._read(size, start)
            return whole[place : place + size]

        return part

    def _read(self, size: int, start: int) -> bytes:
        data = self.file.read(size, start)
        if len(data) < size:
            raise SourceChanged(f"{self.shard.name} is shorter now than when it was opened")
        return data

    def _read_pieces(self, sample: _Sample) -> bytes:
        data, start = bytearray(sample.size), sample.start
        for offset, size in sample.pieces:
            data[offset : offset + size] = self._read(size, start)
            start += size
        return bytes(data)


def open_tar_source(location: Location, options: SourceOptions) -> Source:
    """Open an archive. With `keep`, columns are the files beside each image, by the part after the first dot.

    `cls` gives whole numbers, all other names give text. A sample without the file has null.

    Raises:
        BadSource: A local archive is damaged or truncated.
    """
    columns: dict[str, Any] = {}
    if options.keep:
        arrow = import_package("pyarrow")
        columns = {name: arrow.int64() if name.lower() == "cls" else arrow.string() for name in options.keep}
    shard = TarShard(location, options)
    if location.path is not None:
        _check_whole(location)
    return Source(name=location.name, shards=[shard], columns=columns)


def _check_whole(location: Location) -> None:
    """Check that an archive is not truncated: it ends with zeros, or else all headers are read."""
    file = location.open_copy()
    end = file.read(_END_BYTES, max(0, file.size - _END_BYTES))
    with closing(tar_members(file, location.name)) as members:
        # The first header is read in any case: another kind of file may end with zeros too.
        for _ in members:
            if len(end) == _END_BYTES and not any(end):
                break


def _value(name: str, member: TarMember, read: _Reader) -> int | str:
    """Return the contents of a file beside an image, or raise `InvalidImage`."""
    shown = printable(member.name.rpartition("/")[2])
    if member.size > _MAX_SIDECAR_BYTES:
        raise InvalidImage(f"{shown} beside it has {member.size:,} bytes: {_MAX_SIDECAR_BYTES:,} can be kept")
    if member.pieces:
        raise InvalidImage(f"{shown} beside it has holes, so it cannot be kept")
    try:
        text = read(member.size, member.start).decode()
        if name.lower() != "cls":
            return text
        number = int(text)
    except UnicodeDecodeError:
        raise InvalidImage(f"{shown} beside it is not text, so it cannot be kept") from None
    except ValueError:
        raise InvalidImage(f"{shown} beside it is not a whole number, as .cls must be") from None
    if number.bit_length() >= 64:
        raise InvalidImage(f"{shown} beside it has a number that does not fit into 64 bits")
    return number


def _kind(member: TarMember) -> str:
    if not member.is_file:
        return "not regular files"
    folder, _, base = member.name.rpartition("/")
    # Names in `./` are usual, and hidden folders are rare.
    if "." in folder and any(part.startswith(".") and part.strip(".") for part in folder.split("/")):
        return "hidden"
    return file_kind(base)


def _ending(member: TarMember) -> str:
    return member.name.rpartition("/")[2].partition(".")[2].lower()


def _grouped(members: Iterator[TarMember]) -> Iterator[list[TarMember]]:
    """Yield the members of each sample: those that follow each other, and are equal up to the first dot."""
    group: list[TarMember] = []
    key = ""
    for member in members:
        folder, slash, base = member.name.rpartition("/")
        its_key = f"{folder}{slash}{base.partition('.')[0]}"
        if group and its_key != key:
            yield group
            group = []
        key = its_key
        group.append(member)
    if group:
        yield group
