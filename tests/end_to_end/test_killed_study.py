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

SYSTEMS = ("ae", "vae")
NAMES = ["ae-seed0", "vae-seed0", "ae-seed1", "vae-seed1"]
LONG_S = 200


class Disturbed:
    """A study of four runs in a folder, which is started again and again."""

    def __init__(self, folder: Path) -> None:
        self.cwd = folder
        self.folder = StudyFolder(folder / "out")
        write_blobs(folder / "blobs.npy")

    def start(self) -> StudyProcess:
        return StudyProcess(
            *("--dataset", "blobs.npy", *QUICK, "--epochs", "250", "--objectives", ",".join(SYSTEMS)),
            *("--seeds", "2", "--jobs", "2", "--no-report", "--out", "out"),
            cwd=self.cwd,
        )

    def lines(self) -> int:
        """Return how many lines of metrics all runs have written."""
        paths = self.folder.runs.glob("*/metrics.jsonl")
        return sum(path.read_bytes().count(b"\n") for path in paths)

    def wait_for_progress(self) -> None:
        """Wait until runs have trained for a while from now on."""
        before = self.lines()
        wait_until(lambda: self.lines() > before + 40, within_s=LONG_S)

    def finished(self) -> list[str]:
        return [name for name in NAMES if self.folder.manifest(name) is not None]


@pytest.mark.slow
def test_a_killed_study_gives_what_an_undisturbed_one_gives(tmp_path: Path) -> None:
    """After kill -9, SIGTERM and the end of a child, weights, metrics and graphs are those of plain runs."""
    study = Disturbed(tmp_path)

    running = study.start()
    study.wait_for_progress()
    children = running.children()
    assert len(children) == 2
    assert running.stop(signal.SIGKILL).code == -signal.SIGKILL
    wait_until(lambda: not any(map(is_running, children)), within_s=60)
    # Without the study, its children have saved what they had.
    assert (study.folder.run_dir("vae-seed0") / "checkpoint.safetensors").exists()
    assert study.finished() == []

    running = study.start()
    study.wait_for_progress()
    children = running.children()
    stopped = running.stop(signal.SIGTERM)
    assert stopped.code == 128 + signal.SIGTERM
    assert not any(map(is_running, children))
    count = len(study.finished())
    line = f"stopped by SIGTERM; {count} of 4 runs are finished, and the others go on with the same command"
    assert stopped.err == f"{line}\n"
    assert "a checkpoint is saved" in study.folder.log("vae-seed0").read_text()

    running = study.start()
    study.wait_for_progress()
    kill(running.children()[0])
    failed = running.wait()
    assert failed.code == 1
    assert failed.err.startswith("error: 1 of 4 runs failed (")
    assert "its process was killed, perhaps since memory ran out" in failed.out
    assert len(study.finished()) == 3

    last = study.start().wait()
    assert (last.code, last.err) == (0, "")
    assert "kept       3 of 4 runs, finished before" in last.out
    assert study.finished() == NAMES
    # Nothing was trained or published twice.
    assert [path.name for name in NAMES for path in (study.folder.models / name).iterdir()] == ["1"] * 4
    _assert_plain(study, tmp_path / "plain")


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
