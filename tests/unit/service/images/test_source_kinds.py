"""The table of sources."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convvae_service.images import (
    BadSource,
    FileDecoder,
    ImageBatch,
    ModelInput,
    Source,
    SourceOptions,
    decode_here,
    open_source,
    open_sources,
)
from convvae_service.images import source_kinds as table
from convvae_service.images.location import Location
from support.source_reading import read_source


class SolidShard:
    """Images of one grey level each, listed in a text file: a kind that a test adds."""

    num_bytes = 0

    def __init__(self, location: Location) -> None:
        assert location.path is not None
        self.name = location.name
        self._levels: Sequence[int] = [int(line) for line in location.path.read_text().split()]
        self.rows = len(self._levels)

    def stamp(self) -> str:
        return str(self._levels)

    def count(self) -> int:
        return self.rows

    def open(self, start: int) -> "SolidCursor":
        return SolidCursor(self._levels[start:], start)


class SolidCursor:
    """A position in the list; a batch has one row."""

    left_out: Mapping[str, int] = {}
    fraction = 0.0

    def __init__(self, levels: Sequence[int], start: int) -> None:
        self._rows = [SolidRow(start + index, level) for index, level in enumerate(levels)]

    def take(self, count: int) -> "SolidRow | None":
        assert count > 0
        return self._rows.pop(0) if self._rows else None

    def close(self) -> None: ...


class SolidRow:
    """A row of the list."""

    def __init__(self, row: int, level: int) -> None:
        self._row, self._level = row, level

    def __len__(self) -> int:
        return 1

    def read(self, model_input: ModelInput, decode: FileDecoder = decode_here) -> ImageBatch:
        del decode
        image = np.full((1, *model_input.shape.as_tuple), self._level, np.uint8)
        return ImageBatch(ids=[str(self._row)], images=image)


def open_solid_source(location: Location, options: SourceOptions) -> Source:
    return Source(name=location.name, shards=[SolidShard(location)])


def test_a_new_kind_is_one_module_and_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_input: ModelInput
) -> None:
    """A row in the table is all that a new source needs to be opened by its path."""
    path = tmp_path / "greys.levels"
    path.write_text("0 128 255")
    with pytest.raises(BadSource, match=r"greys\.levels is not a source: give a folder of images, or a tar"):
        open_source(str(path))
    row = table.SourceKind("a list of grey levels", lambda at: at.suffix == ".levels", open_solid_source)
    monkeypatch.setattr(table, "SOURCE_KINDS", (*table.SOURCE_KINDS, row))
    source = open_source(str(path))
    assert (source.name, source.rows) == ("greys.levels", 3)
    assert read_source(source, tiny_input, start=1).images[:, 0, 0, 0].tolist() == [128, 255]
    (tmp_path / "x.gif").touch()
    with pytest.raises(BadSource, match="or a list of grey levels"):
        open_source(str(tmp_path / "x.gif"))


def test_several_sources_are_read_in_order(
    folder: Path, images: NDArray[np.uint8], tiny_input: ModelInput
) -> None:
    """Ids of folders and arrays begin with the name of their source, so that they differ."""
    np.save(folder.parent / "x.npy", images)
    source = open_sources([str(folder), str(folder.parent / "x.npy")])
    assert source.rows == 62
    assert source.name == "pictures and 1 more"
    ids = read_source(source, tiny_input).ids
    assert [ids[0], ids[12], ids[-1]] == ["pictures/class-0/00.png", "x.npy/0", "x.npy/49"]


def test_sources_of_one_name_are_refused(folder: Path, images: NDArray[np.uint8]) -> None:
    """Their rows would have the same ids. The message tells the same file from another of its name."""
    message = "several sources are called 'pictures': their ids would be equal. One is given twice"
    with pytest.raises(BadSource, match=message):
        open_sources([str(folder), f"{folder}/../{folder.name}"])
    np.save(folder / "x.npy", images)
    np.save(folder.parent / "x.npy", images)
    with pytest.raises(BadSource, match=r"equal\. Rename one, or embed each to a result of its own"):
        open_sources([str(folder / "x.npy"), str(folder.parent / "x.npy")])


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.TAR.ZST", "x.zip", "x.npy.gz", "x.parquet.xz"])
def test_compressed_source_is_named_as_such(name: str, tmp_path: Path) -> None:
    """The message says what to do."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BadSource, match=f"{name} is not a source: it is compressed: decompress it first"):
        open_source(tmp_path / name)


def test_one_image_is_no_source(folder: Path) -> None:
    """The message says how to embed it."""
    with pytest.raises(
        BadSource, match=r"00\.png is not a source: it is one image: give its folder, or write"
    ):
        open_source(folder / "class-0" / "00.png")


def test_empty_text_is_no_source() -> None:
    """An unset variable of a shell does not stand for the current folder."""
    with pytest.raises(BadSource, match="a source is an empty text"):
        open_source("")


@pytest.mark.parametrize("option", ["where", "image_column", "id_column"])
@pytest.mark.parametrize("name", ["pictures", "-"])
def test_options_of_parquet_files_are_not_passed_over(option: str, name: str, folder: Path) -> None:
    """Another kind of source refuses them."""
    text = name if name == "-" else str(folder)
    shown = "standard input" if name == "-" else name
    flag = "--" + option.replace("_", "-")
    with pytest.raises(BadSource, match=f"{flag} needs Parquet files, and {shown} is none"):
        open_source(text, SourceOptions(**{option: "label"}))  # type: ignore[arg-type]


def test_arrays_of_two_shapes_are_refused(tmp_path: Path) -> None:
    """Both files are named."""
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 6), np.uint8))
    np.save(tmp_path / "b.npy", np.zeros((2, 6, 8), np.uint8))
    with pytest.raises(BadSource, match=r"a\.npy has images of shape \(8, 6, 1\), and b\.npy of shape"):
        open_source(str(tmp_path / "*.npy"))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s-{000..002}.npy", ["s-000.npy", "s-001.npy", "s-002.npy"]),
        ("s-*.npy", ["s-000.npy", "s-001.npy", "s-002.npy", "s-{x}.npy"]),
        ("{s-00[12],s-000}.npy", ["s-001.npy", "s-002.npy", "s-000.npy"]),
        ("s-{x}.npy", ["s-{x}.npy"]),
    ],
)
def test_patterns_stand_for_files(pattern: str, names: list[str], tmp_path: Path) -> None:
    """Braces and stars are expanded, in this order, and a file of that very name comes first."""
    for name in ("s-000.npy", "s-001.npy", "s-002.npy", "s-{x}.npy"):
        np.save(tmp_path / name, np.zeros((1, 8, 6), np.uint8))
    for text in (str(tmp_path / pattern), f"file://{tmp_path}/{pattern}"):
        assert [shard.name for shard in open_source(text).shards] == names


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none-*.tar", "none-*.tar' matches no file"),
        ("{1..1000000}.tar", "stands for more than 100000 files"),
        ("gone-{0..3}.tar", "gone-0.tar' does not exist"),
    ],
)
def test_pattern_without_files_is_refused(pattern: str, message: str, tmp_path: Path) -> None:
    """The message names the pattern or the first file that is missing."""
    with pytest.raises(BadSource) as caught:
        open_source(str(tmp_path / pattern))
    assert message in str(caught.value)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    """A path that does not exist is refused as such, whatever its name."""
    with pytest.raises(BadSource, match=r"source '.*missing.npy' does not exist"):
        open_source(str(tmp_path / "missing.npy"))
    with pytest.raises(BadSource, match=r"source '.*' cannot be read: File name too long"):
        open_source(str(tmp_path / ("n" * 300 + ".tar")))
