"""A study that is killed in every way, and gives what an undisturbed one gives."""

import json
import signal
from pathlib import Path

import pytest

from convvae_trainer.compute.process import configure_process
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.runs.fit import fit
from convvae_trainer.study.folder import StudyFolder
from support.run_comparison import assert_same
from support.study_process import QUICK, StudyProcess, is_running, kill
from support.tiny_run import export_fitted, write_blobs
from support.waiting import wait_until

NAMES = ["ae-seed0", "vae-seed0"]
LONG_S = 200


class Disturbed:
    """A study of two runs in a folder, which is started again and again."""

    def __init__(self, folder: Path) -> None:
        self.cwd = folder
        self.folder = StudyFolder(folder / "out")
        write_blobs(folder / "blobs.npy")

    def start(self) -> StudyProcess:
        return StudyProcess(
            *("--dataset", "blobs.npy", *QUICK, "--epochs", "250", "--objectives", "ae,vae"),
            *("--seeds", "1", "--jobs", "2", "--no-report", "--out", "out"),
            cwd=self.cwd,
        )

    def lines(self) -> list[int]:
        """Return how many lines of metrics each run has written."""
        paths = [self.folder.metrics(name) for name in NAMES]
        return [path.read_bytes().count(b"\n") if path.exists() else 0 for path in paths]

    def wait_for_progress(self) -> None:
        """Wait until both runs have trained for a while from now on."""
        before = self.lines()
        wait_until(
            lambda: all(now > old + 15 for now, old in zip(self.lines(), before, strict=True)),
            within_s=LONG_S,
        )

    def finished(self) -> list[str]:
        return [name for name in NAMES if self.folder.manifest(name) is not None]


@pytest.mark.slow
def test_a_study_that_was_killed_gives_what_plain_runs_give(tmp_path: Path) -> None:
    """After kill -9 its children end with a checkpoint; the next command ends at the same bits as `fit`."""
    study = Disturbed(tmp_path)
    running = study.start()
    study.wait_for_progress()
    children = running.children()
    assert len(children) == 2
    assert running.stop(signal.SIGKILL).code == -signal.SIGKILL
    wait_until(lambda: not any(map(is_running, children)), within_s=60)
    for name in NAMES:
        assert "stopped by SIGTERM at step" in study.folder.log(name).read_text()
        assert (study.folder.run_dir(name) / "checkpoint.safetensors").exists()
    assert study.finished() == []

    ended = study.start().wait()
    assert (ended.code, ended.err) == (0, "")
    for name in NAMES:
        assert "resuming at step" in study.folder.log(name).read_text()
    assert study.finished() == NAMES
    _assert_plain(study, tmp_path / "plain")


@pytest.mark.slow
def test_a_study_goes_on_after_a_signal_and_after_the_end_of_a_child(tmp_path: Path) -> None:
    """SIGTERM ends all children with checkpoints; a child that is killed loses its own run alone, for now."""
    study = Disturbed(tmp_path)
    running = study.start()
    study.wait_for_progress()
    children = running.children()
    stopped = running.stop(signal.SIGTERM)
    assert stopped.code == 128 + signal.SIGTERM
    assert not any(map(is_running, children))
    line = "stopped by SIGTERM; 0 of 2 runs are finished, and the others go on with the same command"
    assert stopped.err == f"{line}\n"

    running = study.start()
    study.wait_for_progress()
    kill(running.children()[0])
    failed = running.wait()
    assert failed.code == 1
    assert failed.err.startswith("error: 1 of 2 runs failed (")
    assert "its process was killed, perhaps since memory ran out" in failed.out
    assert len(study.finished()) == 1

    last = study.start().wait()
    assert (last.code, last.err) == (0, "")
    assert "kept       1 of 2 runs, finished before" in last.out
    assert study.finished() == NAMES
    # Nothing was published twice.
    assert [path.name for name in NAMES for path in (study.folder.models / name).iterdir()] == ["1", "1"]


def _assert_plain(study: Disturbed, plain: Path) -> None:
    """Assert that each run of the study is what a run of its own gives, bit by bit."""
    record = study.folder.read()
    assert record is not None
    configure_process(threads=1)
    for name in NAMES:
        config = record.runs[name]
        dataset = load_dataset(config)
        fitted = fit(config, dataset, plain / name)
        exported = export_fitted((fitted, dataset), plain / "models", name)
        assert_same(study.folder.run_dir(name), plain / name)
        figures = json.loads((study.folder.run_dir(name) / "evaluation.json").read_text())
        assert figures == json.loads((plain / name / "evaluation.json").read_text())
        for file in ("encoder.onnx", "decoder.onnx"):
            published = study.folder.models / name / "1" / file
            assert published.read_bytes() == (exported.folder / file).read_bytes()
