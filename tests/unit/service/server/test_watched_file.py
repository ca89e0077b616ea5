"""Files that are followed: whatever way their contents change, and however slowly they are written."""

import logging
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from convvae_service.server.watched_file import WatchedFile

KEPT = "changed files cannot be used: the old content stays"
READ = "files read again"


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Followed:
    """A file of numbers, looked at each half second of a clock."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.path = path
        self.parsed = 0
        self.file = WatchedFile((path,), self._parse, clock=self.clock)

    def _parse(self, contents: tuple[bytes, ...]) -> list[int]:
        self.parsed += 1
        return [int(line) for line in contents[0].splitlines()]

    def after(self, seconds: float) -> list[int]:
        """Return the value after some seconds."""
        for _ in range(round(2 * seconds)):
            self.clock.now_s += 0.5
            self.file.look()
        return self.file.value


@pytest.fixture
def followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Followed:
    caplog.set_level(logging.INFO)
    path = tmp_path / "value"
    path.write_text("1\n")
    return Followed(path)


def rename_over(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("2\n")
    new.rename(path)


def write_in_place(path: Path) -> None:
    path.write_text("2\n")


def keep_times_and_size(path: Path) -> None:
    state = path.stat()
    path.write_text("2\n")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def go_back_in_time(path: Path) -> None:
    path.write_text("2\n")
    os.utime(path, ns=(1, 1))


def remove_and_make(path: Path) -> None:
    path.unlink()
    path.write_text("2\n")


def swap_a_folder_behind_links(path: Path) -> None:
    """As mounted secrets of Kubernetes do: the file is a link through `..data`, which is replaced."""
    folder = path.parent
    for version, text in (("..1", "1\n"), ("..2", "2\n")):
        (folder / version).mkdir()
        (folder / version / "value").write_text(text)
    (folder / "..data").symlink_to("..1")
    path.unlink()
    path.symlink_to("..data/value")
    (folder / "..tmp").symlink_to("..2")
    (folder / "..tmp").rename(folder / "..data")


def replace_by_a_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("2\n")
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize(
    "rotate",
    [
        rename_over,
        write_in_place,
        keep_times_and_size,
        go_back_in_time,
        remove_and_make,
        swap_a_folder_behind_links,
        replace_by_a_link,
    ],
)
def test_each_way_to_change_a_file_ends_in_the_new_content(
    followed: Followed, rotate: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """It is read when it has been the same for two seconds, and that is logged once."""
    rotate(followed.path)
    assert followed.after(2) == [1]
    assert followed.after(0.5) == [2]
    followed.after(20)
    assert followed.parsed == 2
    assert caplog.messages == [READ]


def test_a_file_that_is_written_in_steps_counts_at_the_end(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the empty file, nor the first lines, nor half a line is ever the value."""
    with followed.path.open("w") as file:
        assert followed.after(3) == [1]
        for text in ("2\n", "3\n", "40"):
            file.write(text)
            file.flush()
            assert followed.after(1.5) == [1]
        assert followed.after(2) == [1]
        file.write("5\n")
    assert followed.after(2.5) == [2, 3, 405]
    assert caplog.messages == [READ]


def test_a_last_line_without_an_end_counts_in_the_end(followed: Followed) -> None:
    """Nothing tells such a file from half of one but time."""
    followed.path.write_text("23")
    assert followed.after(4) == [1]
    assert followed.after(0.5) == [23]


def test_a_file_that_is_emptied_counts_in_the_end(followed: Followed) -> None:
    """Not in the moment in which it is written in place."""
    followed.path.write_text("")
    assert followed.after(4) == [1]
    assert followed.after(0.5) == []


def test_a_last_line_without_an_end_is_read_at_the_start(tmp_path: Path) -> None:
    """The server starts at once."""
    path = tmp_path / "value"
    path.write_text("23")
    assert Followed(path).file.value == [23]


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="root reads everything")
def test_a_file_that_becomes_readable_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """A reading that fails is tried again; two lines tell when it began to fail and when it worked."""
    caplog.set_level(logging.INFO)
    # Only the user of the tests may look into pytest's folders.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "value"
        path.write_text("1\n")
        make_readable_late(Followed(path), caplog)


def make_readable_late(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    """Replace the file by one that cannot be read, and then allow it."""
    new = followed.path.with_name("new")
    new.write_text("2\n")
    new.chmod(0)
    new.rename(followed.path)
    with as_nobody():
        assert followed.after(20) == [1]
    assert caplog.messages == [KEPT]
    followed.path.chmod(0o644)
    with as_nobody():
        assert followed.after(2.5) == [2]
    assert caplog.messages == [KEPT, READ]


class as_nobody:  # noqa: N801 - read as a word
    """Lets the process read as a user without rights, where it is root."""

    def __enter__(self) -> None:
        self._user = os.geteuid()
        if self._user == 0:
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        if self._user == 0:
            os.seteuid(0)


def test_bad_contents_leave_the_old_value(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    """They are logged once, tried again now and then, and give way to good ones."""
    followed.path.write_text("bad\n")
    assert followed.after(60) == [1]
    assert caplog.messages == [KEPT]
    assert 4 <= followed.parsed <= 8
    followed.path.unlink()
    assert followed.after(5) == [1]
    assert caplog.messages == [KEPT] * 2
    followed.path.write_text("22\n")
    assert followed.after(2.5) == [22]
    assert caplog.messages == [KEPT, KEPT, READ]


def test_a_file_that_comes_back_as_it_was(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    """It is not read, and the log tells that the fault has gone."""
    followed.path.rename(followed.path.with_name("away"))
    followed.after(1)
    followed.path.with_name("away").rename(followed.path)
    assert followed.after(1) == [1]
    assert followed.parsed == 1
    assert caplog.messages == [KEPT, "files are as they were"]


def test_a_pipe_or_folder_in_its_place_holds_nobody_up(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe would wait for its writer."""
    followed.path.unlink()
    os.mkfifo(followed.path)
    assert followed.after(1) == [1]
    followed.path.unlink()
    followed.path.mkdir()
    assert followed.after(1) == [1]
    assert caplog.messages == [KEPT]


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """A shell's `<(command)` gives a pipe: a second reading would wait for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("1\n",))
    writer.start()
    followed = Followed(path)
    writer.join()
    os.utime(path, ns=(1, 1))
    assert followed.after(10) == [1]
    assert followed.parsed == 1


def test_a_file_without_end_is_refused() -> None:
    """A device has no size."""
    with pytest.raises(ValueError, match="'/dev/zero' is larger than 16777216 bytes"):
        Followed(Path("/dev/zero"))
