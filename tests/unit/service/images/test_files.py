"""The files that a folder gives, those that are left out, and reads that cannot wait."""

import os
import threading
from pathlib import Path

import pytest

from convvae_service.images import (
    BadSource,
    InvalidImage,
    TooManyPixels,
    image_files,
    open_source,
    printable,
    read_file,
)
from support.odd_folder import LEFT_OUT, add_odd_entries


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    """Each kind has its number, and those that are not regular files are named."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.png").touch()
    add_odd_entries(tmp_path)
    files = image_files(tmp_path)
    assert files.names == ["b/a.png"]
    assert str(files.left_out) == LEFT_OUT


def test_suffixes_of_jpeg(tmp_path: Path) -> None:
    """JPEG files have four suffixes, in any case."""
    for name in ("a.jpg", "b.JPEG", "c.jpe", "d.JFIF", "e.jp2"):
        (tmp_path / name).touch()
    files = image_files(tmp_path)
    assert files.names == ["a.jpg", "b.JPEG", "c.jpe", "d.JFIF"]
    assert files.left_out.counts == {".jp2": 1}


def test_folder_of_other_kinds_says_which(tmp_path: Path) -> None:
    """A folder without images says what it holds."""
    add_odd_entries(tmp_path)
    with pytest.raises(
        BadSource, match=r"no images in .*: it must contain .*; left out: 3 not regular files"
    ):
        open_source(tmp_path)


def test_many_suffixes_are_one_number(tmp_path: Path) -> None:
    """Only the ten most frequent suffixes have a number of their own."""
    for number in range(30):
        (tmp_path / f"x.s{number}").touch()
    counts = image_files(tmp_path).left_out.counts
    assert len(counts) == 11
    assert counts["of other kinds"] == 20


def test_links(tmp_path: Path) -> None:
    """A link to a file is read; one that leads nowhere is a file that is missing, and one to itself too."""
    (tmp_path / "a.png").write_bytes(b"data")
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "c.png").symlink_to("absent.png")
    (tmp_path / "d.png").symlink_to("d.png")
    assert image_files(tmp_path).names == ["a.png", "b.png", "c.png", "d.png"]
    assert read_file(str(tmp_path / "b.png")) == b"data"
    with pytest.raises(InvalidImage, match="it is a link to a file that does not exist"):
        read_file(str(tmp_path / "c.png"))
    with pytest.raises(InvalidImage, match="cannot be read: Too many levels of symbolic links"):
        read_file(str(tmp_path / "d.png"))


def test_name_of_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, and a name that no system takes."""
    with pytest.raises(InvalidImage, match="it is not a regular file"):
        read_file(str(tmp_path))
    with pytest.raises(InvalidImage, match="cannot be read: its name has a NUL byte"):
        read_file("a\0b.png")
    with pytest.raises(InvalidImage, match="cannot be read: File name too long"):
        read_file("n" * 300)


def test_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    """A file of a TiB with the name of an image takes no memory."""
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooManyPixels, match="1,099,511,627,776 bytes are more than the limit of 1,000"):
        read_file(str(tmp_path / "x.png"))


@pytest.mark.parametrize("path", ["fifo.png", "link.png", "socket.jpg", "/dev/null"])
def test_read_never_waits(tmp_path: Path, path: str) -> None:
    """A file that became a FIFO, a socket or a device after the listing is refused at once."""
    add_odd_entries(tmp_path)
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(InvalidImage, match=r"not a regular file|cannot be read: No such device"):
            read_file(os.path.join(tmp_path, path))  # noqa: PTH118 - as the callers do
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    assert ended.wait(10)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A list of paths may name one. It is refused like every other path that cannot be read."""
    with pytest.raises(InvalidImage, match="it is not a regular file"):
        read_file(str(tmp_path))


@pytest.mark.parametrize("size", [0, 1, 5000, 3 << 20])
@pytest.mark.parametrize("difference", [-1, 0, 1, 2000])
def test_a_file_that_changes_its_size_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, difference: int
) -> None:
    """Another program writes it, or the system does not know its size."""
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "a.png").write_bytes(data)
    fstat = os.fstat

    def earlier(handle: int) -> os.stat_result:
        state = list(fstat(handle))
        state[6] = max(0, size + difference)
        return os.stat_result(state)

    monkeypatch.setattr(os, "fstat", earlier)
    assert read_file(str(tmp_path / "a.png")) == data


@pytest.mark.parametrize("name", ["fifo.npy", "fifo.npz", "fifo.idx", "fifo.x"])
def test_source_that_is_no_regular_file_is_refused(tmp_path: Path, name: str) -> None:
    """A FIFO in place of an array is not opened."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadSource, match="is not a folder and not a regular file"):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain é.png", "plain é.png"),
        ("a\nb\t\x1b[31m.png", r"a\nb\t\x1b[31m.png"),
        (os.fsdecode(b"a\xe9.png"), r"a\xe9.png"),
        ("\u202egnp.x", r"\u202egnp.x"),
    ],
)
def test_names_are_shown_on_one_line(name: str, shown: str) -> None:
    """Control characters and bytes that are not UTF-8 do not reach the terminal."""
    assert printable(name) == shown
