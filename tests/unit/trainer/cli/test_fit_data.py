"""The data of `fit` on the command line: what it prints, other sets to test and validate on, moved data."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.commands import run_train
from support.tiny_run import SHORT


def write(folder: Path, count: int, *, seed: int, size: tuple[int, int] = (10, 12)) -> None:
    """Write different grey images."""
    folder.mkdir(parents=True)
    for number, image in enumerate(np.random.default_rng(seed).integers(256, size=(count, *size))):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number:02}.png")


def lines(text: str) -> dict[str, str]:
    """Return the lines of the summary by their first word."""
    return {line[:11].strip(): line[11:] for line in text.splitlines()}


def test_it_prints_how_it_understands_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images, their sizes, classes with their numbers, where test and validation images come from, a hint."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "p" / "train" / "photos" / "cat", 6, seed=0, size=(20, 24))
    write(tmp_path / "p" / "train" / "photos" / "dog", 5, seed=1, size=(40, 30))
    write(tmp_path / "p" / "val" / "photos", 4, seed=2, size=(20, 24))
    write(tmp_path / "p" / "test" / "photos", 3, seed=3, size=(20, 24))
    assert (
        run_train(monkeypatch, "fit", "--dataset", "p", "--image-size", "8", "--run-dir", "run", *SHORT) == 0
    )
    found = lines(capsys.readouterr().out)
    folder = tmp_path / "p"
    assert found["data"] == f"{folder}: 11 training images of 8x8x1, resized from 20x24 to 40x30"
    assert found["classes"] == "1: photos (11)"
    assert found["test"] == (
        "the data set's own 3 test images; its folders train, val and test are read as its parts"
    )
    assert found["validation"] == "the data set's own 4 validation images"
    assert found["hint"] == (
        f"all images have the label photos: --dataset {folder}/train/photos takes cat, dog as labels"
    )


@pytest.mark.slow
def test_other_sets_are_found_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluation, resume and export know them from the run, and in a new place by their flags."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b", "c")):
        write(tmp_path / name, 12, seed=seed)
    sets = ("--dataset", "a", "--test-dataset", "b", "--validation-dataset", "c")
    assert run_train(monkeypatch, "fit", *sets, "--run-dir", "run", *SHORT) == 0
    assert lines(capsys.readouterr().out)["validation"] == "the 12 images of c"
    text = (tmp_path / "run" / "reproduce.txt").read_text()
    assert "12 training, 12 validation and\n   12 test images of 10x12x1" in text
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["test_dataset"], config["validation_dataset"]) == (
        str(tmp_path / "b"),
        str(tmp_path / "c"),
    )
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert run_train(monkeypatch, "evaluate", "../run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["split"] == "the 12 images of b"
    repeated = ("fit", "--config", "../run/config.json", "--run-dir", "again")
    assert run_train(monkeypatch, *repeated) == 0
    records = [json.loads(Path(name, "run.json").read_text())["data"] for name in ("../run", "again")]
    assert records[0] == records[1]
    shutil.move(tmp_path / "b", tmp_path / "moved")
    capsys.readouterr()
    export = ("export", "../run", "--models", "models", "--name", "a")
    assert run_train(monkeypatch, *export) == 2
    assert f"{tmp_path / 'b'} does not exist" in capsys.readouterr().err
    moved = ("--test-dataset", "../moved")
    assert run_train(monkeypatch, *export, *moved) == 0
    assert run_train(monkeypatch, "fit", "--resume", "--run-dir", "../run", *moved) == 0
    card = Path("models/a/1/MODEL_CARD.md").read_text()
    assert "| Validation images | 12: the 12 images of c |" in card
    assert "| Test images | 12: the 12 images of b |" in card
    shutil.copy(tmp_path / "moved" / "00.png", tmp_path / "moved" / "99.png")
    capsys.readouterr()
    assert run_train(monkeypatch, "fit", "--resume", "--run-dir", "../run", *moved) == 2
    assert "are not the images of the run in" in capsys.readouterr().err
