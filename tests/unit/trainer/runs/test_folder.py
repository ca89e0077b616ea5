"""The folder of a run: damaged files are refused, and what it says about repeating the run is true."""

import dataclasses
import json
import os
import shutil
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from convvae_trainer.commands.evaluate import run_evaluate
from convvae_trainer.compute.device import pick_device
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import BadRun
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.folder import RunFolder, check_new, write_obstacle
from convvae_trainer.runs.reproduce import repeatability
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.config import Config
from support.tiny_run import TINY, write_blobs


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of one epoch, to be read only."""
    folder = tmp_path_factory.mktemp("short")
    config = Config(dataset=str(write_blobs(folder / "blobs.npy")), **{**TINY, "epochs": 1})
    fit(config, load_dataset(config), folder / "run")
    return folder / "run"


@pytest.fixture
def run_dir(short_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged or resumed."""
    return shutil.copytree(short_run, tmp_path / "run")


def changed(path: Path, **values: Any) -> str:
    return json.dumps({**json.loads(path.read_text()), **values})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "config.json cannot be read"),
        ("run.json", "[]", "run.json cannot be read: not a JSON object"),
        ("run.json", "{}", "run.json is damaged: 'segments' is missing or is not a list; restore it"),
        ("checkpoint.safetensors", "x", "checkpoint.safetensors cannot be read"),
    ],
)
def test_a_damaged_run_is_refused(run_dir: Path, name: str, text: str, message: str) -> None:
    """A run whose records are damaged is refused with the file's name."""
    (run_dir / name).write_text(text)
    with pytest.raises(BadRun) as raised:
        load_run(run_dir)
    assert message in str(raised.value)


def test_a_run_is_opened_once_for_an_evaluation(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is evaluated where it was trained, unless another device is named."""
    opened: list[Path] = []
    devices: list[str] = []
    open_run = RunFolder.open

    def note_open(path: Path) -> RunFolder:
        opened.append(path)
        return open_run(path)

    def note_device(name: str) -> torch.device:
        devices.append(name)
        return pick_device(name)

    monkeypatch.setattr(RunFolder, "open", note_open)
    monkeypatch.setattr("convvae_trainer.runs.start.pick_device", note_device)
    run_evaluate(run_dir)
    assert (opened, devices) == ([run_dir], ["cpu"])
    run_evaluate(run_dir, device="auto")
    assert devices == ["cpu", "auto"]


@pytest.mark.parametrize(
    "values",
    [
        {"threads": 0},
        {"threads": "1"},
        {"precision": "fp8"},
        {"reason": None},
        {"data": None},
        {"data": {"sha256": "0"}},
    ],
)
def test_a_record_that_lacks_something_is_refused(run_dir: Path, values: dict[str, Any]) -> None:
    """Every key that resume, evaluation or export reads is checked when the run is opened."""
    (run_dir / "run.json").write_text(changed(run_dir / "run.json", **values))
    with pytest.raises(BadRun, match=r"run\.json is damaged: "):
        RunFolder.open(run_dir)


@pytest.mark.parametrize("image", [[], [12, 10], [12, 10, "1"]])
def test_a_record_without_the_images_shape_is_refused(run_dir: Path, image: list[Any]) -> None:
    """The networks' shape follows from it."""
    data = json.loads((run_dir / "run.json").read_text())["data"]
    (run_dir / "run.json").write_text(changed(run_dir / "run.json", data={**data, "image": image}))
    with pytest.raises(BadRun, match=r"run\.json is damaged: 'image' is "):
        RunFolder.open(run_dir)


@pytest.mark.parametrize(
    "line", [b"[1]", b"7", b'{"step": null}', b'{"kind": "st', b"\xff\xfe", b"[" * 99999]
)
def test_metrics_end_at_the_first_damaged_line(
    run_dir: Path, config: Config, dataset: Dataset, line: bytes
) -> None:
    """A line that was cut short, or is none of ours, ends the metrics; a resume drops it."""
    before = RunFolder.open(run_dir).read_metrics()
    with (run_dir / "metrics.jsonl").open("ab") as file:
        file.write(line)
    assert RunFolder.open(run_dir).read_metrics() == before
    fit(dataclasses.replace(config, epochs=1), dataset, run_dir, resume=True)
    assert RunFolder.open(run_dir).read_metrics() == before


def test_a_damaged_evaluation_counts_as_none(run_dir: Path) -> None:
    """Export then evaluates again, instead of publishing a card with holes."""
    run, path = RunFolder.open(run_dir), run_dir / "evaluation.json"
    whole = json.loads(path.read_text())
    assert run.read_evaluation() == whole
    damaged = ["{}", "[]", "{", changed(path, elbo="high"), changed(path, sigma="wide"), "[" * 99999]
    damaged += [json.dumps({k: v for k, v in whole.items() if k != gone}) for gone in ("seed", "binarize")]
    for text in damaged:
        path.write_text(text)
        assert run.read_evaluation() is None
    path.unlink()
    assert run.read_evaluation() is None


def test_a_disk_that_fills_up_is_said_in_one_line(
    run_dir: Path, config: Config, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that cannot write where it resumes does not start."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "rewind_metrics", full)
    with pytest.raises(
        BadRun, match="cannot be written: No space left on device; the last checkpoint is kept"
    ):
        fit(dataclasses.replace(config, epochs=1), dataset, run_dir, resume=True)


def test_what_is_no_run_folder_is_told_apart(tmp_path: Path) -> None:
    """A folder that is absent, a file, and a folder that holds something else are called so."""
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    for name, message in (
        ("absent", r"run folder .*absent does not exist"),
        ("file", r"file is a file, not a run folder"),
        ("other", r"other is not a run folder: it has no run\.json"),
    ):
        with pytest.raises(BadRun, match=message):
            RunFolder.open(tmp_path / name)


def test_a_folder_that_cannot_be_written_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before data are read, and before anything is measured; nothing is made."""
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    with pytest.raises(BadRun, match=r"new cannot be written: Permission denied: choose another --run-dir"):
        check_new(tmp_path / "deep" / "new")
    monkeypatch.undo()
    check_new(tmp_path / "deep" / "new")
    assert list(tmp_path.iterdir()) == []


def test_equality_is_promised_where_it_holds(fitted: tuple[Fitted, Dataset]) -> None:
    """Equal bits on a CPU, comparable figures if time limits the run, and nothing on a GPU."""
    run = fitted[0].run
    line = repeatability(run.config, run.record)
    assert line == "On the same kind of CPU, the same steps give the same weights, bit by bit.\n"
    assert (run.path / "reproduce.txt").read_text().endswith(line)
    timed = dataclasses.replace(run.config, epochs=None, minutes=1.0)
    assert "expect comparable figures, not equal weights" in repeatability(timed, run.record)
    segment = dataclasses.replace(run.record.segments[0], device="cuda")
    on_gpu = dataclasses.replace(run.record, segments=(segment,))
    assert repeatability(run.config, on_gpu) == ""


def test_the_reason_why_no_file_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the way, missing permission and a disk that is read-only are told apart; nothing is made."""
    (tmp_path / "file").touch()
    assert write_obstacle(tmp_path / "new" / "deep") == ""
    assert write_obstacle(tmp_path / "file" / "new") == f"{tmp_path / 'file'} is not a folder"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert write_obstacle(tmp_path / "new") == "Permission denied"
    read_only = types.SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    assert write_obstacle(tmp_path / "new") == "Read-only file system"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
