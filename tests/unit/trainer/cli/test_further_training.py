"""The command `fit` on weights that exist: `--resume` with a later end, and `--from`."""

import json
import shutil
from pathlib import Path

import pytest

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.exports.publish import Exported
from convvae_trainer.runs.fit import Fitted
from support.commands import run_train

SHORT_RUN = ("--precision", "fp32", "--threads", "1", "--device", "cpu")


@pytest.fixture
def run_dir(fitted: tuple[Fitted, Dataset], tmp_path: Path) -> Path:
    """A copy of a run of four epochs that has ended."""
    return shutil.copytree(fitted[0].run.path, tmp_path / "run")


def test_a_later_end_trains_on(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flag alone extends the run, and the screen says what happens to the learning rate."""
    assert run_train(monkeypatch, "fit", "--resume", "--epochs", "5", "--run-dir", str(run_dir)) == 0
    output = capsys.readouterr().out
    assert "new end    5 epochs, of which 4 epochs are done; the learning rate goes on at " in output
    assert json.loads((run_dir / "config.json").read_text())["epochs"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "3"], "the run has had 4 epochs: its new end, 3 epochs, must be later"),
        (["--minutes", "0"], "it must be from 0.001 to 1000000 minutes"),
        (["--epochs", "6", "--latent-dim", "5"], "has latent_dim=4, not 5: resume it with its own settings"),
        (["--epochs", "6", "--from", "x"], "--from starts a new run, and --resume continues one"),
    ],
)
def test_an_end_that_cannot_be_is_one_line(
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """Exit code 2 and one line, and the run stays as it was."""
    before = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file()}
    assert run_train(monkeypatch, "fit", "--resume", "--run-dir", str(run_dir), *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file()} == before


def test_weights_bring_their_settings(
    fitted: tuple[Fitted, Dataset],
    published_blobs: tuple[Path, Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With `--from` alone the networks are those of the model, and the screen names it."""
    words = ["fit", "--from", f"{published_blobs[0]}/blobs@1", "--dataset", fitted[1].name, "--epochs", "1"]
    assert run_train(monkeypatch, *words, "--run-dir", str(tmp_path / "finer"), *SHORT_RUN) == 0
    assert "weights    those of blobs@1\n" in capsys.readouterr().out
    settings = json.loads((tmp_path / "finer" / "config.json").read_text())
    own = fitted[0].run.config
    assert [settings[name] for name in ("latent_dim", "width", "hidden")] == [
        own.latent_dim,
        own.width,
        own.hidden,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latent-dim", "5"], "latent_dim is 5, but the weights of blobs@1 are for latent_dim=4"),
        (["--likelihood", "discretised-logistic"], "likelihood is discretised-logistic, but the weights of"),
        (
            ["--image-size", "16"],
            "are 16x16x1, but the weights of blobs@1 are for 12x10x1: give --",
        ),
        (["--objective", "ae"], "objective is ae, but the weights of blobs@1 are those of vae"),
    ],
)
def test_other_networks_are_one_line(
    fitted: tuple[Fitted, Dataset],
    published_blobs: tuple[Path, Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """The line names the difference, and no folder is made."""
    words = ["fit", "--from", f"{published_blobs[0]}/blobs", "--dataset", fitted[1].name]
    assert run_train(monkeypatch, *words, "--run-dir", str(tmp_path / "new"), *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "new").exists()


def test_a_source_that_is_absent_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says that there is neither a run nor a model."""
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--from", "models/none", "--dataset", "digits", "--run-dir", "new"]
    assert run_train(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert "--from: models/none is no run folder, and no model is published at 'models/none'" in error
    assert error.count("\n") == 1
