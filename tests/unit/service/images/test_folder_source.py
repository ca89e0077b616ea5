import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from convvae_service.images import (
    BadSource,
    ModelInput,
    Source,
    SourceOptions,
    decode_file,
    open_source,
    open_sources,
)
from support.source_reading import read_source


def open_folder(folder: Path) -> Source:
    return open_source(str(folder))


EXPECTED = sorted(
    f"class-{number % 3}/{number:02}.{('png', 'jpg', 'webp', 'JPEG')[number % 4]}" for number in range(12)
)


def test_files_of_any_depth_in_order(folder: Path, tiny_input: ModelInput) -> None:
    """Ids are sorted paths relative to the folder. Hidden files and other files are skipped."""
    source = open_folder(folder)
    assert source.name == "pictures"
    assert source.rows == 12
    assert read_source(source, tiny_input, count=5).ids == EXPECTED
    assert read_source(source, tiny_input, start=3).ids == EXPECTED[3:]


def test_pixels_are_those_of_the_service(folder: Path, tiny_input: ModelInput) -> None:
    """Files are decoded and resized by the function that the service uses."""
    batch = read_source(open_folder(folder), tiny_input)
    for image, file_id in zip(batch.images, batch.ids, strict=True):
        data = (folder / file_id).read_bytes()
        np.testing.assert_array_equal(
            image, decode_file(data, shape=tiny_input.shape, resize=tiny_input.resize)
        )


def test_unreadable_files_are_rejected_with_a_reason(folder: Path, tiny_input: ModelInput) -> None:
    """The other files of the batch are still read."""
    source = open_folder(folder)
    (folder / EXPECTED[2]).write_bytes(b"no image")
    (folder / EXPECTED[4]).unlink()
    whole = (folder / EXPECTED[5]).read_bytes()
    (folder / EXPECTED[5]).write_bytes(whole[: len(whole) // 2])
    batch = read_source(source, tiny_input)
    assert [(bad.id, bad.reason) for bad in batch.rejected] == [
        (EXPECTED[2], "not a JPEG, PNG or WebP image"),
        (EXPECTED[4], "cannot be read: No such file or directory"),
        (EXPECTED[5], "image file is cut short"),
    ]
    assert batch.ids == [name for i, name in enumerate(EXPECTED) if i not in (2, 4, 5)]
    assert len(batch.images) == 9


def test_name_that_is_no_text_is_rejected(folder: Path, tiny_input: ModelInput) -> None:
    """An id is text; a file whose name is not UTF-8 cannot have one."""
    (folder / EXPECTED[0]).rename(folder / os.fsdecode(b"\xff\xfe.png"))
    batch = read_source(open_folder(folder), tiny_input)
    assert [(bad.id, bad.reason) for bad in batch.rejected] == [
        ("\\xff\\xfe.png", "its name is not UTF-8: rename it")
    ]


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    """The message names the accepted formats."""
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BadSource, match=r"no images in .*: it must contain JPEG, PNG or WebP files"):
        open_folder(tmp_path)


@pytest.mark.parametrize("suffix", [".tar", ".parquet", ".npy"])
def test_folder_of_other_sources_says_how_to_give_them(suffix: str, tmp_path: Path) -> None:
    """A folder of shards, as other programs write Parquet."""
    (tmp_path / f"part-0{suffix}").touch()
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(BadSource) as caught:
        open_folder(tmp_path)
    assert str(caught.value).endswith(f"1 of other kinds. Give the files, such as '{tmp_path}/*{suffix}'")


def test_folder_that_cannot_be_listed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be listed is an error, because its images would be missing without notice."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("class-1"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadSource, match=r"class-1 cannot be listed: Permission denied"):
        open_folder(folder)


def test_first_folder_level_can_be_kept(folder: Path, tiny_input: ModelInput) -> None:
    """The column label is the first folder of the path, and null without one."""
    (folder / "class-0" / "00.png").rename(folder / "top.png")
    source = open_source(str(folder), SourceOptions(keep=("label",)))
    batch = read_source(source, tiny_input)
    expected = [row_id.split("/")[0] if "/" in row_id else None for row_id in batch.ids]
    assert batch.kept == {"label": expected}
    assert None in expected
    with pytest.raises(BadSource, match=r"pictures has no column 'colour' to keep: a folder has label"):
        open_source(str(folder), SourceOptions(keep=("colour",)))


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_changed_folder_has_another_stamp(folder: Path, change: str) -> None:
    """A file that is added, removed or written again changes the stamp."""
    (shard,) = open_folder(folder).shards
    before = shard.stamp()
    assert shard.stamp() == before
    match change:
        case "grow":
            (folder / "new.png").write_bytes(b"x")
        case "shrink":
            (folder / EXPECTED[1]).unlink()
        case _:
            (folder / EXPECTED[1]).write_bytes(b"x")
    assert shard.stamp() != before


def test_paths_on_standard_input(
    folder: Path, tiny_input: ModelInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line is a path, and the id of its row."""
    paths = [str(folder / name) for name in EXPECTED[:4]] + [str(folder / "gone.png")]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("\n".join([*paths, ""]).encode())))
    batch = read_source(open_source("-"), tiny_input)
    assert batch.ids == paths[:4]
    assert [(row.id, row.reason) for row in batch.rejected] == [
        (paths[4], "cannot be read: No such file or directory")
    ]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    with pytest.raises(BadSource, match="standard input has no paths: write one a line"):
        open_source("-")


def test_list_in_any_form(folder: Path, tiny_input: ModelInput, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line ends of Windows and empty lines; ids are the lines beside other sources too."""
    path = str(folder / EXPECTED[0])
    text = f"\r\n{path}\r\n\n{folder}".encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    source = open_sources(["-", str(folder)])
    batch = read_source(source, tiny_input)
    assert batch.ids[:2] == [path, f"pictures/{EXPECTED[0]}"]
    assert [(row.id, row.reason) for row in batch.rejected] == [(str(folder), "it is not a regular file")]
    (folder / "new.txt").touch()
    assert source.shards[0].stamp() == source.stamps[0]


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (SimpleNamespace(buffer=io.BytesIO(b"a.png\0b.png\0")), "standard input has NUL bytes: separate the"),
        (None, "standard input is closed: write paths to it, one a line"),
    ],
)
def test_list_that_is_none_is_refused(stdin: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names between NUL bytes, as of `find -print0`, and no standard input."""
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(BadSource, match=message):
        open_source("-")
