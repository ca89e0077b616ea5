"""Steps and weights that are not finite are skipped, counted, and end the run if they go on."""

import io
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import Interrupted, TrainerError
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState
from support.interruption import before_step
from support.run_comparison import final, metrics


def test_a_step_that_is_not_finite_is_skipped_and_counted(config: Config, dataset: Dataset) -> None:
    """A batch whose loss is NaN changes no weight and no moment; the count says so; training goes on."""
    train_state = TrainState(config, shape=dataset.image.as_tuple, device=torch.device("cpu"))
    batch = torch.from_numpy(dataset.train[:16]).permute(0, 3, 1, 2)
    train_state.step(batch, learning_rate=1e-3, beta=1.0)
    before = {name: tensor.clone() for name, tensor in train_state.tensors().items()}
    train_state.step(batch, learning_rate=1e-3, beta=math.nan)
    after = train_state.tensors()
    same = [name for name in before if name.startswith(("weights.", "optimizer."))]
    assert len(same) > len(before) / 2
    assert all(torch.equal(before[name], after[name]) for name in same)
    means = train_state.step_metrics.means()
    assert (means["steps"], means["skipped_steps"]) == (2, 1)
    assert math.isfinite(means["distortion"])
    train_state.step(batch, learning_rate=1e-3, beta=1.0)
    assert not torch.equal(before["weights.model.encoder.head.weight"], train_state.model.encoder.head.weight)
    assert all(torch.isfinite(tensor).all() for tensor in train_state.tensors().values())


def test_skipped_steps_are_said_at_the_end(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count for all segments, since a resumed run prints them once; a run without any says nothing."""

    def beta(_: Config, epochs: float) -> float:
        return math.nan if epochs in (0.25, 2.0) else 1.0

    fit(config, dataset, tmp_path / "clean", console=Console(file=(clean := io.StringIO()), width=200))
    assert "were skipped" not in clean.getvalue()
    monkeypatch.setattr("convvae_trainer.runs.loop.effective_beta", beta)
    with monkeypatch.context() as patch:
        before_step(patch, 6, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            fit(config, dataset, tmp_path / "run")
    screen = io.StringIO()
    fit(config, dataset, tmp_path / "run", resume=True, console=Console(file=screen, width=200))
    assert "2 of 16 steps had no finite loss or gradient and were skipped\n" in screen.getvalue()


def test_an_epoch_without_a_finite_step_stops_the_run(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing is learned any more, the run says so instead of burning time."""
    monkeypatch.setattr("convvae_trainer.runs.loop.effective_beta", lambda *_: math.nan)
    monkeypatch.setattr("convvae_trainer.runs.metrics_log.MetricsLog.append", lambda *_: None)
    with pytest.raises(TrainerError, match=r"the last \d+ steps, up to step \d+, had no finite loss"):
        fit(config, dataset, tmp_path / "run")


def test_weights_that_are_no_numbers_end_the_run(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN among the weights makes every step one to skip; the checkpoint from before it is kept."""

    def damage() -> None:
        with torch.no_grad():
            next(train_states[0].model.decoder.parameters())[0] = math.nan

    train_states: list[TrainState] = []
    step = TrainState.step

    def noted(self: TrainState, *args: Any, **kwargs: Any) -> None:
        train_states.append(self)
        step(self, *args, **kwargs)

    monkeypatch.setattr(TrainState, "step", noted)
    before_step(monkeypatch, 5, damage)
    advice = r"or gradient: start a new run with a lower learning_rate \(now 0\.002\); the last checkpoint is"
    with pytest.raises(TrainerError, match=rf"the last 7 steps, up to step 12, had no finite loss {advice}"):
        fit(config, dataset, tmp_path / "run", checkpoint_every_s=0)
    assert all(torch.isfinite(tensor).all() for tensor in final(tmp_path / "run").values())
    lines = metrics(tmp_path / "run")
    assert [line["skipped_steps"] for line in lines if line["kind"] == "epoch"] == [0, 3, 4]
