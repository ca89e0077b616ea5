import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.errors import BadSink, Interrupted, RunFailed
from convvae_service.pipeline.signals import interrupt_on_signals
from support.folder_sync import refuse_folder_sync

LEFTOVER = ".x.parquet.0123456789ab.unfinished"


def test_file_appears_when_it_is_published(tmp_path: Path) -> None:
    """Before publication the file has a hidden name in the same folder."""
    target = tmp_path / "x.parquet"
    file = AtomicFile(target, overwrite=False)
    file.path.write_bytes(b"whole")
    assert file.path.parent == tmp_path
    assert file.path.name.startswith(".x.parquet.")
    assert not target.exists()
    assert file.publish() == 5
    file.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]
    assert target.read_bytes() == b"whole"


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    """Files of killed runs are removed, and other files are kept."""
    (tmp_path / LEFTOVER).write_bytes(b"half")
    others = [".y.parquet.0123456789ab.unfinished", ".x.parquet.other.unfinished", "x.parquet.old"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    file = AtomicFile(tmp_path / "x.parquet", overwrite=False)
    assert {path.name for path in tmp_path.iterdir()} == {*others, file.path.name}
    file.remove()


def test_file_of_a_run_in_progress_is_left_alone(tmp_path: Path) -> None:
    """Two runs to one name do not destroy each other's file, and the second one fails."""
    first = AtomicFile(tmp_path / "x.parquet", overwrite=False)
    second = AtomicFile(tmp_path / "x.parquet", overwrite=False)
    first.path.write_bytes(b"first")
    first.publish()
    with pytest.raises(RunFailed, match="was created by another program during the run and was kept"):
        second.publish()
    for file in (first, second):
        file.remove()
    assert (tmp_path / "x.parquet").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_file_is_replaced_when_asked_for(tmp_path: Path) -> None:
    """The old file stays complete until the new one replaces it."""
    target = tmp_path / "x.parquet"
    target.write_bytes(b"old")
    file = AtomicFile(target, overwrite=True)
    file.path.write_bytes(b"new")
    assert target.read_bytes() == b"old"
    file.publish()
    file.remove()
    assert target.read_bytes() == b"new"


def test_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """The message names the folder."""
    with pytest.raises(BadSink, match=r"cannot write in .*gone.*: No such file or directory"):
        AtomicFile(tmp_path / "gone" / "x.parquet", overwrite=False)


def test_file_that_appears_at_the_last_moment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system decides at the rename itself, not a check before it."""
    target = tmp_path / "x.parquet"
    file = AtomicFile(target, overwrite=False)
    target.write_bytes(b"theirs")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(RunFailed, match="was created by another program during the run and was kept"):
        file.publish()
    assert target.read_bytes() == b"theirs"
    file.remove()


@pytest.mark.parametrize("taken", [False, True])
def test_disk_without_hard_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """On a file system without hard links the file is renamed."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "x.parquet"
    file = AtomicFile(target, overwrite=False)
    file.path.write_bytes(b"whole")
    if taken:
        target.write_bytes(b"theirs")
        with pytest.raises(RunFailed, match="was created by another program"):
            file.publish()
    else:
        file.publish()
    file.remove()
    assert target.read_bytes() == (b"theirs" if taken else b"whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_that_comes_too_late_lets_the_run_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A signal after publication is ignored, because "nothing was written" would be wrong."""
    file = AtomicFile(tmp_path / "x.parquet", overwrite=False)
    link = os.link

    def link_and_signal(*arguments: Any) -> None:
        link(*arguments)
        signal.raise_signal(number)

    monkeypatch.setattr(os, "link", link_and_signal)
    with interrupt_on_signals():
        file.publish()
        file.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]
    with pytest.raises(Interrupted), interrupt_on_signals():
        signal.raise_signal(number)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A disk without fsync for folders is passed over. Another error says that the file is there."""
    refuse_folder_sync(monkeypatch, number)
    file = AtomicFile(tmp_path / "x", overwrite=False)
    try:
        if number == errno.EIO:
            with pytest.raises(RunFailed, match="x' is complete, but a power failure may remove it"):
                file.publish()
        else:
            file.publish()
    finally:
        file.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
