"""The command line: what is refused, with which message and exit code, before any work."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.step.train_state import TrainState
from support.commands import run_train
from support.tiny_run import write_blobs

SHORT = [
    "--width",
    "4",
    "--hidden",
    "16",
    "--latent-dim",
    "4",
    "--epochs",
    "1",
    "--precision",
    "fp32",
    "--threads",
    "1",
]


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
    """Bad input is answered by one line and exit code 2; no run folder appears."""
    monkeypatch.chdir(tmp_path)
    assert run_train(monkeypatch, "fit", "--run-dir", "run", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["torch", "torchvision", "safetensors", "onnx", "onnxscript"])
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, package: str
) -> None:
    """Without the trainer's packages the message says what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    assert run_train(monkeypatch, "fit", "--dataset", "digits", "--run-dir", str(tmp_path / "run")) == 2
    assert capsys.readouterr().err == f'error: {package} is not installed: pip install "convvae[trainer]"\n'


def test_a_missing_runtime_is_noticed_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A run that is to be exported is refused at once when ONNX Runtime is missing."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    arguments = ["--dataset", "digits", "--models", str(tmp_path / "m"), "--name", "digits"]
    assert run_train(monkeypatch, "fit", "--run-dir", str(tmp_path / "run"), *arguments) == 2
    message = (
        'error: onnxruntime is not installed: pip install "convvae[gpu]" or pip install "convvae[cpu]"\n'
    )
    assert capsys.readouterr().err == message
    assert not (tmp_path / "run").exists()


def test_fit_evaluate_export(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, blobs: Path
) -> None:
    """The three commands follow one another; each says where things are and what to type next."""
    run_dir, models = str(tmp_path / "run"), str(tmp_path / "models")
    assert run_train(monkeypatch, "fit", "--dataset", str(blobs), "--run-dir", run_dir, *SHORT) == 0
    output = capsys.readouterr().out
    assert "the last 8 of 80 images after a shuffle by seed 0 are held out" in output
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


def test_evaluation_on_other_images(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, blobs: Path
) -> None:
    """Other data must have the run's size and channels."""
    run_dir = str(tmp_path / "run")
    assert run_train(monkeypatch, "fit", "--dataset", str(blobs), "--run-dir", run_dir, *SHORT) == 0
    capsys.readouterr()
    assert run_train(monkeypatch, "evaluate", run_dir, "--dataset", "digits") == 2
    assert "images of digits are 32x32x1, but the run needs 12x10x1" in capsys.readouterr().err
    assert run_train(monkeypatch, "evaluate", str(tmp_path), "--json") == 2
    assert "holds no run" in capsys.readouterr().err
    write_blobs(tmp_path / "other.npy", count=30)
    assert run_train(monkeypatch, "evaluate", run_dir, "--dataset", str(tmp_path / "other.npy")) == 0
    assert f"evaluated     {tmp_path / 'other.npy'}: all 30 images" in capsys.readouterr().out
    assert run_train(monkeypatch, "evaluate", run_dir, "--device", "foo") == 2
    assert "device is 'foo'" in capsys.readouterr().err


def test_changed_data_are_not_taken_for_the_runs_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, blobs: Path
) -> None:
    """Their held-out images would be others, of which the run may have seen some; moved data are the same."""
    run_dir, models = str(tmp_path / "run"), str(tmp_path / "models")
    assert run_train(monkeypatch, "fit", "--dataset", str(blobs), "--run-dir", run_dir, *SHORT) == 0
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    capsys.readouterr()
    moved = blobs.rename(tmp_path / "moved.npy")
    write_blobs(blobs, count=81)
    for command in (["evaluate", run_dir], ["export", run_dir, "--models", models, "--name", "x"]):
        assert run_train(monkeypatch, *command) == 2
        assert "are not those that the run in" in capsys.readouterr().err
    assert not Path(models).exists()
    assert run_train(monkeypatch, "evaluate", run_dir, "--dataset", str(moved), "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["elbo"], again["split"]) == (figures["elbo"], figures["split"])
    assert run_train(monkeypatch, "fit", "--resume", "--run-dir", run_dir, "--dataset", str(moved)) == 0
    export = ["export", run_dir, "--models", models, "--name", "x", "--dataset", str(moved)]
    assert run_train(monkeypatch, *export) == 0


def test_a_run_is_used_and_made_again_from_any_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, blobs: Path
) -> None:
    """Data are typed by relative paths; the reproducing line works in the run folder, as it says."""
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    blobs: Path,
    number: signal.Signals,
) -> None:
    """The hint can be pasted: quoted, and with what else was asked for; the exit code names the signal."""
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
    assert run_train(monkeypatch, *words[1:]) == 0
    assert (models / "x" / "1" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "run.json"), "error: run.json: No space left on device\n"),
        (PermissionError(13, "Permission denied"), "error: input or output: Permission denied\n"),
        (MemoryError(), "error: memory ran out: use fewer or smaller images\n"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: Exception,
    message: str,
) -> None:
    """Whatever no other message covers ends in a line and exit code 1, with no traceback."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("convvae_trainer.commands.evaluate.run_evaluate", fail)
    assert run_train(monkeypatch, "evaluate", str(tmp_path)) == 1
    assert capsys.readouterr().err == message


def test_help_is_quick_and_light() -> None:
    """`--help` loads neither torch nor ONNX, and the package can be run as a module."""
    code = (
        "import sys; sys.argv = ['convvae-train', '--help']\n"
        "from convvae_trainer.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'onnx', 'onnxruntime', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    module = [sys.executable, "-m", "convvae_trainer", "fit", "--help"]
    assert "--run-dir" in subprocess.run(module, capture_output=True, text=True, check=True).stdout
