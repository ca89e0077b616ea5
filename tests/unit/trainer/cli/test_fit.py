"""The command `fit`: errors before any work, its output, and the way to continue it."""

import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.step.train_state import TrainState
from support.commands import run_train
from support.tiny_run import SHORT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dataset", "digits", "--image-size", "4"],
            "--image-size is 4x4: each side must be from 8 to 256 pixels",
        ),
        (["--dataset", "digits", "--image-size", "300x300"], "--image-size is 300x300"),
        (["--dataset", "digits", "--image-size", "big"], "--image-size is 'big': give H or HxW"),
        ([], "dataset is not set"),
        (
            ["--dataset", "digits", "--epochs", "1", "--minutes", "1"],
            "--epochs 1 and --minutes 1 are both",
        ),
        (["--dataset", "digits", "--models", "models"], "--models and --name go together"),
        (["--dataset", "digits", "--models", "models", "--name", "a b"], "--name: 'a b' is not a model name"),
        (["--dataset", "nonsense-xyz"], "unknown data set 'nonsense-xyz'"),
        (["--dataset", "mnist", "--data-root", "absent"], "MNIST was not found in"),
        (["--dataset", "digits", "--config", "absent.toml"], "config file 'absent.toml' cannot be read"),
        (["--dataset", "digits", "--device", "cuda:99"], "device is cuda:99, but torch sees"),
        (["--dataset", "a" * 300 + "/b"], "cannot be read: File name too long"),
        (["--dataset", "~nobody-of-this-name/x"], "there is no such user's home folder"),
        (["--dataset", "mnist", "--data-root", "~nobody-of-this-name/x"], "no such user's home folder"),
        (["--dataset", "digits", "--seed", "1" + "0" * 400], "--seed is 1000"),
        (["--resume"], "run folder run does not exist"),
    ],
)
def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """Bad input gives an error of one line and exit code 2, and no run folder."""
    monkeypatch.chdir(tmp_path)
    assert run_train(monkeypatch, "fit", "--run-dir", "run", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_fit_evaluate_export(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, blobs: Path
) -> None:
    """Each of the three commands prints the place of its result and the next command."""
    run_dir, models = str(tmp_path / "run"), str(tmp_path / "models")
    assert run_train(monkeypatch, "fit", "--dataset", str(blobs), "--run-dir", run_dir, *SHORT) == 0
    output = capsys.readouterr().out
    assert "10 of 80 images are held out: the hash of their pixels falls into the lowest tenth" in output
    assert "test ELBO" in output
    assert f"next          convvae-train export {run_dir} --models models --name NAME" in output

    assert run_train(monkeypatch, "evaluate", run_dir, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((tmp_path / "run" / "evaluation.json").read_text())

    assert run_train(monkeypatch, "evaluate", run_dir, "--seed", "5") == 0
    assert "active units" in capsys.readouterr().out

    assert run_train(monkeypatch, "export", run_dir, "--models", models, "--name", "blobs") == 0
    output = capsys.readouterr().out
    assert f"exported      {models}/blobs/1" in output
    assert f"next          convvae-serve --models {models}" in output

    assert run_train(monkeypatch, "fit", "--dataset", str(blobs), "--run-dir", run_dir, *SHORT) == 2
    assert "already holds a run: --resume continues it" in capsys.readouterr().err
    assert run_train(monkeypatch, "fit", "--resume", "--run-dir", run_dir) == 0
    assert run_train(monkeypatch, "fit", "--resume", "--run-dir", run_dir, "--latent-dim", "9") == 2
    assert "has latent_dim=4, not 9" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_used_and_made_again_from_any_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, blobs: Path
) -> None:
    """Relative paths work from any folder, and so does the command that reproduces the run."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", "blobs.npy", "--data-root", "sets", "--run-dir", "run", *SHORT]
    assert run_train(monkeypatch, "fit", *arguments) == 0
    text = (tmp_path / "run" / "reproduce.txt").read_text()
    line = next(line for line in text.splitlines() if line.startswith("   convvae-train"))
    monkeypatch.chdir(tmp_path / "run")
    assert run_train(monkeypatch, *shlex.split(line)[1:-1], str(tmp_path / "again")) == 0
    first, second = (
        read_checkpoint(tmp_path / name / "checkpoint.safetensors")[0] for name in ("run", "again")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert run_train(monkeypatch, "evaluate", ".") == 0
    assert run_train(monkeypatch, "fit", "--resume", "--run-dir", ".") == 0
    assert run_train(monkeypatch, "export", ".", "--models", "../models", "--name", "x") == 0
    for path in (tmp_path / "models" / "x" / "1").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    blobs: Path,
    number: signal.Signals,
) -> None:
    """The command in the message continues the run, with all flags. The exit code names the signal."""
    run_dir, models = tmp_path / "a run", tmp_path / "my models"
    step = TrainState.step

    def stop(self: TrainState, *args: Any, **kwargs: Any) -> None:
        signal.raise_signal(number)
        step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "step", stop)
        arguments = ["--dataset", str(blobs), "--run-dir", str(run_dir), *SHORT, "--data-root", "my sets"]
        arguments += ["--batch-size", "16"]
        target = ["--models", str(models), "--name", "x", "--device", "cpu"]
        assert run_train(patch, "fit", *arguments, *target) == 128 + number
    error = capsys.readouterr().err
    assert error.startswith(f"stopped by {number.name} at step 1; a checkpoint is saved: ")
    words = shlex.split(error.partition("is saved: ")[2])
    expected = ["--models", str(models), "--name", "x", "--data-root", "my sets", "--device", "cpu"]
    assert words == ["convvae-train", "fit", "--resume", "--run-dir", str(run_dir), *expected]
    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "step", stop)
        assert run_train(patch, *words[1:], "--no-cuda-graph") == 128 + number
    assert shlex.split(capsys.readouterr().err.partition("is saved: ")[2]) == [*words, "--no-cuda-graph"]
    if number == signal.SIGTERM:
        assert run_train(monkeypatch, *words[1:]) == 0
        assert (models / "x" / "1" / "manifest.json").is_file()
