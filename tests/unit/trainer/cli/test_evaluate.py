"""The commands on a run that exists, with its own data, moved data and other data."""

import json
from pathlib import Path

import pytest
from PIL import Image

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.runs.fit import Fitted
from support.commands import run_train
from support.tiny_run import SHORT, write_blobs


def test_evaluation_on_other_images(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    fitted: tuple[Fitted, Dataset],
) -> None:
    """Other data must have the run's size and channels."""
    run_dir = str(fitted[0].run.path)
    assert run_train(monkeypatch, "evaluate", run_dir, "--dataset", "digits") == 2
    assert "images of digits are 32x32x1, but the run needs 12x10x1" in capsys.readouterr().err
    assert run_train(monkeypatch, "evaluate", str(tmp_path), "--json") == 2
    assert "is not a run folder" in capsys.readouterr().err
    write_blobs(tmp_path / "other.npy", count=30)
    assert run_train(monkeypatch, "evaluate", run_dir, "--dataset", str(tmp_path / "other.npy")) == 0
    assert f"evaluated     {tmp_path / 'other.npy'}: all 30 images" in capsys.readouterr().out
    assert run_train(monkeypatch, "evaluate", run_dir, "--device", "foo") == 2
    assert "device is 'foo'" in capsys.readouterr().err


@pytest.mark.slow
def test_changed_data_are_not_taken_for_the_runs_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, blobs: Path
) -> None:
    """Changed data are refused, since the run may have seen their test images. Moved data are accepted."""
    run_dir, models = str(tmp_path / "run"), str(tmp_path / "models")
    assert run_train(monkeypatch, "fit", "--dataset", str(blobs), "--run-dir", run_dir, *SHORT) == 0
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    capsys.readouterr()
    moved = blobs.rename(tmp_path / "moved.npy")
    write_blobs(blobs, count=81)
    for command in (["evaluate", run_dir], ["export", run_dir, "--models", models, "--name", "x"]):
        assert run_train(monkeypatch, *command) == 2
        assert "are not the images of the run in" in capsys.readouterr().err
    assert not Path(models).exists()
    assert run_train(monkeypatch, "evaluate", run_dir, "--dataset", str(moved), "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["elbo"], again["split"]) == (figures["elbo"], figures["split"])
    assert run_train(monkeypatch, "fit", "--resume", "--run-dir", run_dir, "--dataset", str(moved)) == 0
    export = ["export", run_dir, "--models", models, "--name", "x", "--dataset", str(moved)]
    assert run_train(monkeypatch, *export) == 0


def test_bad_files_of_other_data_are_skipped(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    fitted: tuple[Fitted, Dataset],
) -> None:
    """The flags are those of `fit`."""
    for number in range(3):
        Image.new("L", (10, 12), 9 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "x.png").touch()
    words = ["evaluate", str(fitted[0].run.path), "--dataset", str(tmp_path)]
    assert run_train(monkeypatch, *words) == 2
    assert "x.png cannot be used: the file is empty" in capsys.readouterr().err
    assert run_train(monkeypatch, *words, "--on-error", "skip") == 0
    assert "all 3 images; 1 of 4 files cannot be used and were skipped" in capsys.readouterr().out
    assert run_train(monkeypatch, *words, "--on-error", "skip", "--max-pixels", "119") == 2
    assert "4 of 4 files cannot be used" in capsys.readouterr().err
