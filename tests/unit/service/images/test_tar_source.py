"""Tar archives as sources: samples of WebDataset, every form of header, and what is wrong with an archive."""

import os
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from convvae_service.images import BadSource, ModelInput, SourceChanged, SourceOptions, open_source
from support.source_reading import read_source, rows_of
from support.tar_file import write_tar


@pytest.fixture
def files(folder: Path) -> list[tuple[str, bytes]]:
    """12 image files of several kinds: their names and contents."""
    paths = sorted(folder.rglob("class-*/[0-9]*.*"))
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("count", [1, 5, 128])
def test_archive_gives_the_pixels_of_its_folder(
    form: int,
    count: int,
    files: list[tuple[str, bytes]],
    folder: Path,
    tmp_path: Path,
    tiny_input: ModelInput,
) -> None:
    """Ids are names without their suffixes, in the order of the archive, in batches of any size."""
    mtime = 0.5 if form == tarfile.PAX_FORMAT else 0
    path = write_tar(tmp_path / "x.tar", files, form=form, mtime=mtime)
    batch = read_source(open_source(str(path)), tiny_input, count=count)
    assert batch.ids == [name.rpartition(".")[0] for name, _ in files]
    np.testing.assert_array_equal(batch.images, read_source(open_source(str(folder)), tiny_input).images)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read(
    form: int, files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Names that do not fit into a plain header are complete, also after plain ones."""
    long = "/".join(["folder-with-a-long-name"] * 6) if form == tarfile.USTAR_FORMAT else "d" * 300
    foreign = "grün" if form != tarfile.USTAR_FORMAT else "green"
    names = ["a.png", f"{long}/b.png", f"{foreign}.png", "z.png"]
    path = write_tar(tmp_path / "x.tar", [(name, files[0][1]) for name in names], form=form)
    assert read_source(open_source(str(path)), tiny_input).ids == [name[:-4] for name in names]


def test_reading_can_start_at_any_image(
    files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """The rows from there on are those of a whole reading."""
    path = write_tar(tmp_path / "x.tar", files)
    source = open_source(str(path))
    whole = read_source(source, tiny_input)
    rest = read_source(source, tiny_input, start=5, count=2)
    assert rest.ids == whole.ids[5:]
    np.testing.assert_array_equal(rest.images, whole.images[5:])


def test_files_beside_the_image_can_be_kept(
    files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """`cls` gives numbers, other endings text, and a sample without the file null."""
    image = next(data for name, data in files if name.endswith(".png"))
    members = [
        ("s/000.cls", b"7"), ("s/000.png", image), ("s/000.json", b'{"a": 1}'),
        ("s/001.png", image), ("s/001.cls", b"8\n"),
        ("s/002.png", b"no image"), ("s/002.cls", b"9"),
        ("s/003.png", image), ("s/003.seg.png.txt", b"x"),
    ]  # fmt: skip
    path = write_tar(tmp_path / "x.tar", members)
    source = open_source(str(path), SourceOptions(keep=("cls", "json")))
    batch = read_source(source, tiny_input)
    assert batch.ids == ["s/000", "s/001", "s/003"]
    assert batch.kept == {"cls": [7, 8, None], "json": ['{"a": 1}', None, None]}
    assert [(row.id, row.reason) for row in batch.rejected] == [("s/002", "not a JPEG, PNG or WebP image")]
    assert {name: str(kind) for name, kind in source.columns.items()} == {"cls": "int64", "json": "string"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"seven", "0.cls beside it is not a whole number, as .cls must be"),
        (b"9" * 19, "0.cls beside it has a number that does not fit into 64 bits"),
        (b"\xff\xfe", "0.cls beside it is not text, so it cannot be kept"),
        (b"1" * (2 << 20), "0.cls beside it has 2,097,152 bytes: 1,048,576 can be kept"),
    ],
)
def test_image_beside_a_file_that_cannot_be_kept_is_rejected(
    data: bytes, message: str, files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """A label that is no number or no text is the reason of its row, and the other rows are read."""
    image = files[0][1]
    members = [("s/0.png", image), ("s/0.cls", data), ("s/1.png", image), ("s/1.CLS", b"-7")]
    path = write_tar(tmp_path / "x.tar", members)
    batch = read_source(open_source(str(path), SourceOptions(keep=("cls",))), tiny_input)
    assert [(row.id, row.reason) for row in batch.rejected] == [("s/0", message)]
    assert (batch.ids, batch.kept) == (["s/1"], {"cls": [-7]})


def test_second_image_of_an_id_is_rejected(
    files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """The first one is read."""
    path = write_tar(tmp_path / "x.tar", [*files, files[2]])
    batch = read_source(open_source(str(path)), tiny_input)
    assert len(batch.ids) == 12
    (row,) = batch.rejected
    assert row.id == files[2][0].rpartition(".")[0]
    assert row.reason == "duplicate id: an earlier image of this archive has it"


def test_other_members_are_counted(files: list[tuple[str, bytes]], tmp_path: Path) -> None:
    """Hidden files and folders, links and other suffixes are counted by kind, as in a folder."""
    path = tmp_path / "x.tar"
    hidden = [("._a.png", b""), ("./.cache/b.png", b"")]
    write_tar(path, [*files, *hidden, ("notes.txt", b"x"), ("a.tif", b"x"), ("./c.d/b.tif", b"x")])
    with tarfile.open(path, "a") as archive:
        link, folder = tarfile.TarInfo("link.png"), tarfile.TarInfo("folder")
        link.type, link.linkname, folder.type = tarfile.SYMTYPE, "a.png", tarfile.DIRTYPE
        archive.addfile(link)
        archive.addfile(folder)
    (shard,) = open_source(str(path)).shards
    cursor = shard.open(0)
    while cursor.take(5) is not None:
        pass
    assert cursor.left_out == {"hidden": 2, ".txt": 1, ".tif": 2, "not regular files": 1}
    assert cursor.fraction > 0.4
    cursor.close()


def end_of_data(path: Path) -> int:
    with tarfile.open(path) as archive:
        return max(info.offset_data + info.size for info in archive)


def cut_in_a_header(path: Path) -> None:
    os.truncate(path, 1024 + 100)


def cut_in_data(path: Path) -> None:
    os.truncate(path, 512 + 20)


def cut_after_a_header(path: Path) -> None:
    os.truncate(path, 512)


def cut_at_the_end(path: Path) -> None:
    os.truncate(path, end_of_data(path) - 1)


def cut_before_the_zeros(path: Path) -> None:
    os.truncate(path, -(-end_of_data(path) // 512) * 512)


def make_text(path: Path) -> None:
    path.write_bytes(b"this is text, and no archive\n" * 100)


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def compress(path: Path) -> None:
    import gzip

    path.write_bytes(gzip.compress(path.read_bytes()))


def compress_little(path: Path) -> None:
    import gzip

    path.write_bytes(gzip.compress(bytes(1024)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_in_a_header, r"x\.tar is damaged or truncated: no header at byte 1024"),
        (cut_before_the_zeros, r"x\.tar is truncated: the zeros at the end of an archive are missing"),
        (cut_in_data, r"x\.tar is truncated: class-0/00\.png ends at byte \d+, but the file has \d+ bytes"),
        (cut_after_a_header, r"x\.tar is truncated: class-0/00\.png ends at byte"),
        (cut_at_the_end, r"x\.tar is truncated: class-2/11\.JPEG ends at byte"),
        (make_text, r"x\.tar is not a tar archive, or is compressed: decompress it"),
        (make_empty, r"x\.tar is empty"),
        (compress, r"x\.tar is not a tar archive, or is compressed: decompress it"),
        (compress_little, r"x\.tar is not a tar archive, or is compressed: decompress it"),
    ],
)
def test_damaged_archive_is_refused_at_once(
    spoil: Callable[[Path], None], message: str, files: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    """Before any row is read, with the place of the damage."""
    path = write_tar(tmp_path / "x.tar", files)
    spoil(path)
    with pytest.raises(BadSource, match=message):
        open_source(str(path))


def with_size(header: bytes, size: bytes, kind: bytes) -> bytes:
    """Return a header with these bytes as its size, and with the right checksum."""
    changed = bytearray(header)
    changed[124:136], changed[156:157], changed[148:156] = size, kind, b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


@pytest.mark.parametrize(
    ("size", "kind", "message"),
    [
        (b"-0000001000\0", b"0", "the header before byte 512 has a negative size"),
        (b"-0000000001\0", b"0", "the header before byte 512 has a negative size"),
        (b"\xff" * 10 + b"\xfe\0", b"0", "the header before byte 512 has a negative size"),
        (b"\xff" * 10 + b"\xfe\0", b"Z", "the header before byte 512 has a negative size"),
        (b"\x80" + b"\x7f" * 11, b"x", "cannot fit 'int' into an index-sized integer"),
    ],
)
def test_a_size_that_no_file_has_is_refused(
    size: bytes, kind: bytes, message: str, files: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    """A size below zero, which would lead back to its own header for ever, or beyond all memory."""
    path = write_tar(tmp_path / "x.tar", files)
    data = path.read_bytes()
    path.write_bytes(with_size(data[:512], size, kind) + data[512:])
    with pytest.raises(BadSource, match=rf"x\.tar is damaged: {message}"):
        open_source(str(path)).shards[0].count()


def test_damage_in_the_middle_is_found_when_it_is_read(
    files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """A header that cannot be read is no end of the archive."""
    path = write_tar(tmp_path / "x.tar", files)
    data = bytearray(path.read_bytes())
    data[1024:1100] = b"x" * 76
    path.write_bytes(data)
    with pytest.raises(BadSource, match=r"x\.tar is damaged or truncated: no header at byte 1024"):
        read_source(open_source(str(path)), tiny_input)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_joined_archives_are_read_to_the_end(
    form: int, files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """The zeros between two archives in one file hide none of the second."""
    parts = [
        write_tar(tmp_path / f"{number}.tar", part, form=form, mtime=0.5 * (form == tarfile.PAX_FORMAT))
        for number, part in enumerate((files[:5], files[5:]))
    ]
    path = tmp_path / "x.tar"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    batch = read_source(open_source(str(path)), tiny_input)
    assert batch.ids == [name.rpartition(".")[0] for name, _ in files]


def test_archive_that_shrinks_while_it_is_read_is_an_error(
    files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Rows that were taken before say so when they are decoded."""
    path = write_tar(tmp_path / "x.tar", files)
    (shard,) = open_source(str(path)).shards
    rows = next(rows_of(shard))
    os.truncate(path, 2000)
    with pytest.raises(SourceChanged, match=r"x\.tar is shorter now than when it was opened"):
        rows.read(tiny_input)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("cut", [0, 100, 512, 5000])
def test_archive_that_shrinks_between_its_headers_is_an_error(cut: int, form: int, tmp_path: Path) -> None:
    """Its end is not taken for the zeros after the last member, nor looked for forever."""
    large = [(f"{number}.png", bytes(600 << 10)) for number in range(8)]
    path = write_tar(tmp_path / "x.tar", large, form=form, mtime=0.5 * (form == tarfile.PAX_FORMAT))
    (shard,) = open_source(str(path)).shards
    with tarfile.open(path) as archive:
        fifth = archive.getmembers()[4].offset
    rows = rows_of(shard, count=1)
    for _ in range(3):
        next(rows)
    os.truncate(path, fifth + cut)
    with pytest.raises(SourceChanged, match=r"x\.tar is shorter now than when it was opened"):
        list(rows)


@pytest.mark.parametrize("count", [1, 128])
def test_hard_link_is_the_image_that_it_links_to(
    count: int, files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """An archive has the second name of a file as a link to the first; one that leads nowhere is left out."""
    path = write_tar(tmp_path / "x.tar", files[:3])
    first, second = files[0][0], files[1][0]
    with tarfile.open(path, "a") as archive:
        for name, linked in (("b.png", second), ("a.png", first), ("c.png", "a.png"), ("d.png", "gone.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, linked
            archive.addfile(info)
    source = open_source(str(path))
    batch = read_source(source, tiny_input, count=count)
    assert batch.ids[3:] == ["b", "a", "c"]
    np.testing.assert_array_equal(batch.images[3:], batch.images[[1, 0, 0]])
    assert read_source(source, tiny_input, start=4).ids == ["a", "c"]
    (shard,) = source.shards
    with closing(shard.open(0)) as cursor:
        assert sum(len(rows) for rows in iter(lambda: cursor.take(count), None)) == 6
        assert cursor.left_out == {"not regular files": 1}
        assert cursor.fraction <= 1


@pytest.mark.parametrize("form", ["gnu", "posix 0.0", "posix 0.1", "posix 1.0"])
def test_file_with_holes_is_read(
    form: str, files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """`tar --sparse` stores the pieces of a file. The zeros between them are put back."""
    kind, _, version = form.partition(" ")
    image = files[0][1]
    with (tmp_path / "a.png").open("wb") as file:
        file.write(image)
        file.truncate(1 << 20)
    (tmp_path / "b.png").write_bytes(image)
    words = ["tar", "-C", str(tmp_path), f"--format={kind}", "--sparse"]
    words += [f"--sparse-version={version}"] if version else []
    subprocess.run([*words, "-cf", str(tmp_path / "x.tar"), "a.png", "b.png"], check=True)
    (shard,) = open_source(str(tmp_path / "x.tar")).shards
    assert shard.num_bytes < 1 << 20
    batch = read_source(open_source(str(tmp_path / "x.tar")), tiny_input)
    assert batch.ids == ["a", "b"]
    np.testing.assert_array_equal(batch.images[0], batch.images[1])


def test_member_larger_than_any_image_is_not_read(
    files: list[tuple[str, bytes]], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """A name of an image does not bring a file of any size into memory."""
    path = write_tar(tmp_path / "x.tar", [("a.png", bytes((64 << 20) + 1)), ("b.png", files[0][1])])
    batch = read_source(open_source(str(path), SourceOptions(max_pixels=1000)), tiny_input)
    assert batch.ids == ["b"]
    assert [row.reason for row in batch.rejected] == [
        "67,108,865 bytes are more than the limit of 67,108,864 for 1000 pixels: --max-pixels raises it"
    ]
