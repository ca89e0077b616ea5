"""TensorBoard's files: they say what the metrics say, outlive a kill, and change nothing."""

import dataclasses
import io
import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.tensorboard import NUM_PICTURES
from convvae_trainer.settings.assembly import to_json_object
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState

STEPS_PER_EPOCH = 72 // 16
# Trains, and kills itself before step 10.
KILLED = """
import json, os, signal, sys
from pathlib import Path
from convvae_trainer.compute.process import configure_process
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.runs.fit import fit
from convvae_trainer.step.train_state import TrainState

configure_process(threads=1)
step = TrainState.step
def killing(self, *args, **kwargs):
    if self.num_steps == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, *args, **kwargs)
TrainState.step = killing
config = config_from(json.loads(sys.argv[1]))
fit(config, load_dataset(config), Path(sys.argv[2]), checkpoint_every_s=float(sys.argv[3]))
"""


def read(run_dir: Path) -> Any:
    """Return what TensorBoard would show, all of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        sizes = {"scalars": 0, "histograms": 0, "images": 0}
        events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance=sizes)
        events.Reload()
    return events


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of each scalar; times differ from run to run."""
    events = read(run_dir)
    tags = [tag for tag in events.Tags()["scalars"] if tag != "training/elapsed_s"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def picture(event: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))


def test_every_figure_of_the_metrics_is_there(fitted: tuple[Fitted, Dataset]) -> None:
    """Each number of each line of the metrics is a point of its scalar, at its step."""
    run_dir = fitted[0].run.path
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    events = read(run_dir)
    names = {name for line in lines for name, value in line.items() if type(value) in (int, float)} - {"step"}
    assert {"elbo", "rate", "active_units", "gradient_norm", "skipped_steps", "elapsed_s"} <= names
    assert set(events.Tags()["scalars"]) == {f"training/{name}" for name in names}
    for name in names:
        expected = [(line["step"], line[name]) for line in lines if type(line[name]) in (int, float)]
        found = [(event.step, event.value) for event in events.Scalars(f"training/{name}")]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_the_rates_of_the_latents_are_a_histogram(fitted: tuple[Fitted, Dataset]) -> None:
    """Each line has a histogram of as many values as there are latents, which add up to its rate."""
    run_dir = fitted[0].run.path
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    histograms = read(run_dir).Histograms("latents/rate_per_dimension")
    assert [event.step for event in histograms] == [line["step"] for line in lines]
    assert {event.histogram_value.num for event in histograms} == {4}
    sums = [event.histogram_value.sum for event in histograms]
    assert sums == pytest.approx([line["rate"] for line in lines], rel=1e-5)


def test_pictures_show_the_start_and_the_end(fitted: tuple[Fitted, Dataset]) -> None:
    """Test images stand over their reconstructions; there are draws from the prior too."""
    done, dataset = fitted
    events = read(done.run.path)
    assert set(events.Tags()["images"]) == {"pictures/reconstructions", "pictures/samples"}
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [0, done.progress.step]
    first, last = (picture(event) for event in events.Images("pictures/reconstructions"))
    height, width = dataset.image.height, dataset.image.width
    assert NUM_PICTURES >= len(dataset.test) == 10
    for shown in (first, last):
        assert np.array_equal(shown[2 : 2 + height, 2 : 2 + width, 0], dataset.test[0, :, :, 0])
    assert not np.array_equal(first, last)
    with torch.no_grad(), done.train_state.ema.swapped_in():
        image = torch.from_numpy(dataset.test[:1]).permute(0, 3, 1, 2).float() / 255
        mean, _ = done.train_state.model.encoder(image)
        rebuilt = done.train_state.likelihood.pixel_mean(done.train_state.model.decoder(mean))[0, 0] * 255
    top = 2 + height + 2
    found = last[top : top + height, 2 : 2 + width, 0].astype(float)
    assert np.abs(found - rebuilt.numpy()).max() <= 1


@pytest.mark.parametrize("settings", [{}, {"objective": "ae"}, {"binarize": "dynamic", "ema_decay": 0.0}])
def test_it_changes_no_result(
    config: Config, dataset: Dataset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """With and without it a run ends at the same weights, moments and random state, bit by bit."""
    config = dataclasses.replace(config, **settings)
    fit(config, dataset, tmp_path / "with")
    fit(dataclasses.replace(config, tensorboard=False), dataset, tmp_path / "without")
    one, _ = read_checkpoint(tmp_path / "with" / "checkpoint.safetensors")
    other, _ = read_checkpoint(tmp_path / "without" / "checkpoint.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (tmp_path / "without" / "tensorboard").exists()
    pictures = read(tmp_path / "with").Tags()["images"]
    assert ("pictures/samples" in pictures) == (config.objective != "ae")


def test_nothing_is_written_between_two_lines_of_metrics(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is as fast with it as without: all is written where a line of metrics is."""
    sizes: list[int] = []
    step = TrainState.step

    def watched(self: TrainState, *args: Any, **kwargs: Any) -> None:
        files = list((tmp_path / "run" / "tensorboard").iterdir())
        sizes.append(sum(path.stat().st_size for path in files))
        step(self, *args, **kwargs)

    monkeypatch.setattr(TrainState, "step", watched)
    fit(dataclasses.replace(config, epochs=1, batch_size=6), dataset, tmp_path / "run")
    # Before steps 1, 2, 3 ...: lines follow steps 1, 2, 4 and 8.
    assert len(sizes) == 11
    grown = [number for number in range(1, 11) if sizes[number] > sizes[number - 1]]
    assert grown == [1, 2, 4, 8]


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_every_s", [0.0, 1e9])
def test_a_killed_runs_files_can_be_read_and_go_on(
    config: Config, dataset: Dataset, tmp_path: Path, checkpoint_every_s: float
) -> None:
    """After kill -9 all lines up to it are there; a resumed run drops those beyond its checkpoint."""
    arguments = [json.dumps(to_json_object(config)), str(tmp_path / "killed"), str(checkpoint_every_s)]
    process = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    steps = [step for step, _ in scalars(tmp_path / "killed")["training/elbo"]]
    assert steps == [1, 2, 4, 4, 8, 8]
    fit(config, dataset, tmp_path / "killed", resume=True)
    fit(config, dataset, tmp_path / "whole")
    assert scalars(tmp_path / "killed") == scalars(tmp_path / "whole")


def test_without_tensorboard_training_goes_on(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what brings it; nothing else is missing."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    console = Console(file=io.StringIO(), width=200)
    done = fit(dataclasses.replace(config, epochs=1), dataset, tmp_path / "run", console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert 'no TensorBoard files: tensorboard is not installed: pip install "convvae[trainer]"\n' in text
    assert done.progress.epoch == 1
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_latent_that_is_not_finite_is_left_out(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures that are no numbers are no points, in the metrics they are null; training goes on."""
    monkeypatch.setattr(
        "convvae_trainer.step.metrics.StepMetrics.rate_per_dimension", lambda _: [1.0, float("nan")]
    )
    monkeypatch.setattr("convvae_trainer.runs.loop.effective_beta", lambda *_: float("inf"))
    short = dataclasses.replace(config, terms="distortion", epochs=1)
    fit(short, dataset, tmp_path / "run")
    events = read(tmp_path / "run")
    assert "training/beta" not in events.Tags()["scalars"]
    assert events.Tags()["histograms"] == []
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["beta"] is None
    assert line["elbo"] is not None
