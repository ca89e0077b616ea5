"""The command `study`: what it refuses before any work, and one small study from start to report."""

import json
from pathlib import Path

import pytest

from support.commands import run_train
from support.ended import Ended
from support.study_process import QUICK, StudyProcess
from support.tiny_run import write_blobs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "dataset is not set"),
        (["--dataset", "digits", "--seeds", "1,1"], "--seeds: 1 is given twice"),
        (["--dataset", "digits", "--seeds", ""], "--seeds is empty"),
        (["--dataset", "digits", "--objectives", "ae,gan"], "unknown objective 'gan'"),
        (["--dataset", "digits", "--objectives", ""], "--objectives is empty"),
        (["--dataset", "digits", "--vary", "seed=1,2"], "seed cannot be varied"),
        (["--dataset", "digits", "--vary", "run_dir=a,b"], "run_dir is not a setting"),
        (["--dataset", "digits", "--vary", "latent_dim="], "--vary latent_dim is empty"),
        (["--dataset", "digits", "--minutes", "3"], "runs cannot be matched: minutes is 3"),
        (["--dataset", "digits", "--likelihood", "bernoulli"], "needs likelihood=gaussian"),
        (["--dataset", "digits", "--binarize", "dynamic"], "binarize=dynamic is not used by vae-disl"),
        (["--dataset", "digits", "--preset", "nist"], "unknown preset 'nist'"),
        (["--dataset", "nonsense-xyz"], "unknown data set 'nonsense-xyz'"),
        (["--dataset", "digits", "--vary", "train_images=100,9999"], "train_images is 9999, but digits has"),
        (["--dataset", "digits", "--device", "cuda:99"], "device is cuda:99, but torch sees"),
        (["--dataset", "digits", "--config", "absent.toml"], "config file 'absent.toml' cannot be read"),
    ],
)
def test_what_cannot_be_a_study_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """It is refused with exit code 2 before anything is written."""
    monkeypatch.chdir(tmp_path)
    assert run_train(monkeypatch, "study", "--out", "out", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study is never mixed with other files."""
    (tmp_path / "notes.txt").touch()
    assert run_train(monkeypatch, "study", "--dataset", "digits", "--out", str(tmp_path)) == 2
    assert capsys.readouterr().err.endswith(
        "is not empty and holds no study: give a new or an empty folder\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A study of a VAE and an autoencoder, two seeds and two widths, as JSON, and how it ended."""
    folder = tmp_path_factory.mktemp("study")
    write_blobs(folder / "blobs.npy")
    return folder, _again(folder)


def _again(folder: Path, *more: str) -> Ended:
    arguments = ["--objectives", "vae", "--vary", "beta=1,2", "--seeds", "0,7", "--epochs", "2", "--json"]
    data = ["--dataset", str(folder / "blobs.npy"), "--no-report", "--out", "out"]
    return StudyProcess(*arguments, *QUICK, *data, *more, cwd=folder).wait()


@pytest.mark.slow
def test_a_study_ends_with_figures_over_its_seeds(studied: tuple[Path, Ended]) -> None:
    """The JSON has each run, and for each system the mean and deviation of its runs' figures."""
    folder, ended = studied
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert list(result["runs"]) == [f"vae-beta-{beta}-seed{seed}" for seed in (0, 7) for beta in (1, 2)]
    assert list(result["systems"]) == ["vae-beta-1", "vae-beta-2"]
    values = []
    for seed in (0, 7):
        run = result["runs"][f"vae-beta-2-seed{seed}"]
        assert (run["varied"], run["seed"], run["error"]) == ({"beta": 2.0}, seed, None)
        manifest = json.loads((folder / run["model"] / "1" / "manifest.json").read_text())
        assert manifest["training"]["seed"] == seed
        values.append(manifest["training"]["metrics"]["test_mse"])
    figure = result["systems"]["vae-beta-2"]["test_mse"]
    assert result["systems"]["vae-beta-2"]["seeds"] == 2
    assert figure["mean"] == pytest.approx(sum(values) / 2)
    assert figure["deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    # The number of runs comes first.
    assert ended.err.startswith("study      4 runs of 2 epochs\n")


@pytest.mark.slow
def test_the_same_command_keeps_what_is_finished(studied: tuple[Path, Ended]) -> None:
    """Nothing is trained again, and the result is the same; a different study is refused."""
    folder, ended = studied
    before = {path: path.stat().st_mtime_ns for path in folder.glob("out/models/*/*/*")}
    again = _again(folder)
    assert again.code == 0
    assert json.loads(again.out) == json.loads(ended.out)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("out/models/*/*/*")} == before
    other = _again(folder, "--width", "5")
    assert (other.code, other.out) == (2, "")
    assert "out holds a study with width=4 for vae-beta-1-seed0, not 5" in other.err


@pytest.mark.slow
def test_a_run_that_fails_loses_no_other(studied: tuple[Path, Ended]) -> None:
    """A run whose folder is damaged fails in one line; the others stay, and it can be trained anew."""
    folder, _ = studied
    for path in (folder / "out/models/vae-beta-1-seed7/1").iterdir():
        path.unlink()
    record = folder / "out/runs/vae-beta-1-seed7/run.json"
    whole = record.read_text()
    record.write_text("{")
    failed = _again(folder)
    assert failed.code == 1
    result = json.loads(failed.out)
    assert "run.json cannot be read" in result["runs"]["vae-beta-1-seed7"]["error"]
    assert result["systems"]["vae-beta-1"]["seeds"] == 1
    assert result["systems"]["vae-beta-1"]["test_mse"]["deviation"] is None
    assert failed.err.splitlines()[-1].startswith("error: 1 of 4 runs failed (vae-beta-1-seed7)")
    assert "run.json cannot be read" in (record.parent / "log.txt").read_text()
    record.write_text(whole)
    assert _again(folder).code == 0
