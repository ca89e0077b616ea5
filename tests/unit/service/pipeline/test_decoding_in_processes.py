"""Whole runs that decode in processes from their first file on, beside the same runs in threads."""

import io
import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convvae_service.images import DecodingProcesses
from convvae_service.pipeline import run_engine
from support.ended import Ended
from support.tar_file import write_tar

Embed = Callable[..., Ended]

KINDS = ("JPEG", "PNG", "WEBP", "JPEG", "PNG")


class AtOnce(DecodingProcesses):
    """Processes that are ready before the first file, and named."""

    made: list["AtOnce"]

    def __init__(self, count: int) -> None:
        super().__init__(count, patience_s=0.0)
        self.start()
        self.first_pids = self.pids
        self.made.append(self)


class KilledOnce(AtOnce):
    """The same, but they are dead when the first files come."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        for pid in self.first_pids:
            os.kill(pid, signal.SIGKILL)


def pictures() -> list[tuple[str, bytes]]:
    """Return 60 files of three kinds and many sizes, in grey and colour, some of them damaged."""
    draw = random.Random(0)
    files = []
    for number in range(60):
        kind = KINDS[number % len(KINDS)]
        shape = (draw.randint(3, 90), draw.randint(3, 90)) + ((3,) if number % 4 else ())
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, np.uint8)).save(out, kind)
        data = out.getvalue()
        if number % 13 == 5:
            data = data[: len(data) // 2] if number % 2 else b""
        files.append((f"{number % 3}/{number:02}.{kind.lower()}", data))
    return sorted(files)


@pytest.fixture(params=["tar", "folder"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The pictures, as an archive or as a folder."""
    if request.param == "tar":
        return write_tar(tmp_path / "x.tar", pictures())
    for name, data in pictures():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "pictures"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_gone(pids: Sequence[int]) -> None:
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("kind", [AtOnce, KilledOnce])
def test_a_run_in_processes_equals_one_in_threads(
    kind: type[AtOnce],
    source: Path,
    embed: Embed,
    tiny_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parts, tables of failed images and messages are equal, also if all processes die, and none is left."""
    rest: list[Any] = ["--bundle", tiny_root / "tiny", "--part-rows", 16, "--batch-rows", 3]
    rest += ["--on-error", "skip"]
    in_threads = embed(source, tmp_path / "threads", *rest, "--threads", 1)
    kind.made = []
    monkeypatch.setattr(run_engine, "DecodingProcesses", kind)
    in_processes = embed(source, tmp_path / "processes", *rest, "--threads", 2)
    assert (in_processes.code, in_processes.err) == (0, in_threads.err)
    expected = contents(tmp_path / "threads")
    assert len([name for name in expected if name.startswith("_failed")]) > 1
    assert contents(tmp_path / "processes") == expected
    (made,) = kind.made
    assert len(made.first_pids) == 2
    assert made.pids == []
    assert_gone(made.first_pids)


def test_a_run_that_fails_leaves_no_process(
    embed: Embed, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first damaged image ends the run, while the processes have work."""
    monkeypatch.setattr(run_engine, "DecodingProcesses", AtOnce)
    AtOnce.made = []
    archive = write_tar(tmp_path / "x.tar", pictures())
    ended = embed(archive, tmp_path / "z", "--bundle", tiny_root / "tiny", "--batch-rows", 3, "--threads", 2)
    assert ended.code == 2
    assert "--on-error skip leaves such files out" in ended.err
    assert_gone(AtOnce.made[0].first_pids)
