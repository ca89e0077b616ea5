"""The folder of a study: its plan on disk, and which study may go on there."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convvae_trainer.errors import BadConfig, BadRun
from convvae_trainer.runs.lock import LOCK_FILE, check_unlocked, has_orphans
from convvae_trainer.settings.layers import Layer
from convvae_trainer.study.folder import PLAN_FILE, StudyFolder, StudyRecord, check_folder
from convvae_trainer.study.plan import make_plan


def recorded(
    *, objectives: str = "ae,vae", seeds: str = "2", vary: dict[str, Any] | None = None, **settings: Any
) -> StudyRecord:
    layer = Layer({"dataset": "digits", "image_size": "8x8", **settings})
    plan = make_plan([layer], objectives=objectives, seeds=seeds, vary=vary or {})
    return StudyRecord.of(plan, data_sha256="5a", threads=2, command="convvae-train study")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All settings of all runs come back from the file."""
    record = recorded(vary={"latent_dim": (4, 8), "beta": (0.5, 1.0)})
    folder = StudyFolder(tmp_path)
    assert folder.read() is None
    folder.write(record)
    assert folder.read() == record


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (recorded(objectives="ae"), "objectives ae, vae, not ae:"),
        (recorded(seeds="3"), "seeds 0, 1, not 0, 1, 2:"),
        (recorded(vary={"latent_dim": (4, 8)}), "varied settings (none), not latent_dim=4,8:"),
        (recorded(latent_dim=4), "latent_dim=32 for ae-seed0, not 4:"),
        (recorded(beta=2.0), "beta=1.0 for vae-seed0, not 2.0:"),
        (dataclasses.replace(recorded(), data_sha256="6b"), "other images in its data set:"),
    ],
)
def test_another_study_is_refused_with_the_difference(other: StudyRecord, difference: str) -> None:
    """The line names the first difference, the old value before the new one."""
    with pytest.raises(BadRun) as raised:
        recorded().check_same(other, folder=Path("out"))
    assert f"out holds a study with {difference} give the options of that study" in str(raised.value)


def test_a_study_may_move_to_another_device() -> None:
    """The place of the data, the device and the command line decide on no result."""
    moved = recorded(data_root="elsewhere", device="cpu")
    recorded(device="auto").check_same(dataclasses.replace(moved, command="other"), folder=Path("out"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"format": "convvae-study-1"}', '{"format": "convvae-study-9"}', "\x00"]
)
def test_a_damaged_plan_is_one_line(tmp_path: Path, text: str) -> None:
    """A plan that is no study's is refused, with its path."""
    (tmp_path / PLAN_FILE).write_text(text)
    with pytest.raises(BadRun) as raised:
        StudyFolder(tmp_path).read()
    assert str(raised.value).startswith(str(tmp_path / PLAN_FILE))


def test_a_plan_with_a_setting_of_another_version_is_one_line(tmp_path: Path) -> None:
    """A setting that this version does not know is named."""
    StudyFolder(tmp_path).write(recorded())
    values = json.loads((tmp_path / PLAN_FILE).read_text())
    values["runs"]["vae-seed1"]["latent_dmi"] = 3
    (tmp_path / PLAN_FILE).write_text(json.dumps(values))
    with pytest.raises(BadConfig, match="latent_dmi is not a setting"):
        StudyFolder(tmp_path).read()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """A file, and a folder with other contents, are no places for a study; an empty folder is."""
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "deep")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadConfig, match="is not empty and holds no study"):
        check_folder(tmp_path)
    with pytest.raises(BadConfig, match="is a file"):
        check_folder(tmp_path / "notes.txt")


def test_the_lock_lasts_as_long_as_a_child_that_has_it(tmp_path: Path) -> None:
    """After a holder was killed, its child holds the lock: it is told from a holder that is at work."""
    code = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from convvae_trainer.study.folder import StudyFolder\n"
        "with StudyFolder(Path(sys.argv[1])).held() as lock:\n"
        "    child = subprocess.Popen(['sleep', '60'], pass_fds=(lock.handle,), stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        with pytest.raises(BadRun, match=f"in use by process {parent.pid}"):
            check_unlocked(tmp_path)
        assert not has_orphans(tmp_path)
        parent.kill()
        parent.wait()
        assert has_orphans(tmp_path)
    finally:
        parent.kill()
        subprocess.run(["kill", str(child)], check=True)
        parent.communicate()
    with StudyFolder(tmp_path).held():
        assert (tmp_path / LOCK_FILE).exists()
