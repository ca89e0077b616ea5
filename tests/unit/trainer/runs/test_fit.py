"""Training: it learns, it resumes bit by bit, it stops cleanly, it overwrites nothing."""

import dataclasses
import io
import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from convvae_trainer.commands.fit import run_fit
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import BadRun, Interrupted, TrainerError
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.live_display import LiveDisplay
from convvae_trainer.runs.loop import TrainingLoop
from convvae_trainer.runs.progress import TrainProgress
from convvae_trainer.runs.schedules import effective_beta, epoch_order, learning_rate
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.config import Config, config_from
from convvae_trainer.step.train_state import TrainState
from support.interruption import Killed, before_step, kill
from support.run_comparison import assert_same, final, metrics
from support.tiny_run import TINY
from support.training_parts import training_parts


def test_training_lowers_the_loss(fitted: tuple[Fitted, Dataset]) -> None:
    """The ELBO rises from epoch to epoch, and the run folder holds what was promised."""
    done, dataset = fitted
    lines = metrics(done.run.path)
    epochs = [line["elbo"] for line in lines if line["kind"] == "epoch"]
    assert len(epochs) == 4
    assert epochs == sorted(epochs)
    assert [line["step"] for line in lines if line["kind"] == "step"] == [1, 2, 4, 8, 16]
    assert {path.name for path in done.run.path.iterdir()} == {
        "run.json",
        "config.json",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "evaluation.json",
        "reproduce.txt",
        "tensorboard",
    }
    record = json.loads((done.run.path / "run.json").read_text())
    assert record["data"]["split"] == dataset.split
    assert record["data"]["sha256"] == dataset.fingerprint()
    assert record["segments"][0]["libraries"]["torch"]
    text = (done.run.path / "reproduce.txt").read_text()
    assert "convvae-train fit --config config.json --precision fp32 --threads 1 --run-dir" in text
    assert dataset.fingerprint() in text


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": "ae"},
        {"likelihood": "gaussian"},
        {"binarize": "dynamic", "ema_decay": 0.0},
        {"importance_samples": 2},
        {"objective": "vae-gan", "adversarial_start": 0.3},
        {"objective": "vae-disl", "gan_share": 0.3},
        {"objective": "vae-disl", "gan_share": 0.8},
    ],
)
def test_a_killed_run_resumes_bit_by_bit(
    config: Config,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    """Two epochs, a kill in the third, and a resume give the weights and metrics of four in one go."""
    config = config_from({"dataset": config.dataset, **TINY, **settings})
    fit(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_step(patch, 2 * (72 // 16) + 2, kill)
        with pytest.raises(Killed):
            fit(config, dataset, tmp_path / "killed", checkpoint_every_s=0)
    assert len(metrics(tmp_path / "killed")) > 2
    fit(config, dataset, tmp_path / "killed", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("objective", ["vae-gan", "vae-disl"])
@pytest.mark.parametrize("step", [3, 10])
def test_a_signal_between_two_players_loses_nothing(
    config: Config,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    step: int,
) -> None:
    """Stopped in the middle of an epoch, before and after the decoder's game begins or a GAN's ends."""
    starts = {"adversarial_start": 0.4} if objective == "vae-gan" else {"gan_share": 0.4}
    config = config_from({"dataset": config.dataset, **TINY, **starts, "objective": objective})
    fit(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_step(patch, step, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            fit(config, dataset, tmp_path / "stopped")
    names = final(tmp_path / "stopped")
    assert any(name.startswith("optimizer.exp_avg.discriminator.") for name in names)
    fit(config, dataset, tmp_path / "stopped", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_resume(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """SIGTERM and Ctrl-C save in the middle of an epoch; the resumed run is bit by bit the whole one."""
    fit(config, dataset, tmp_path / "whole")
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        before_step(patch, 6, lambda: signal.raise_signal(number))
        with pytest.raises(Interrupted) as raised:
            fit(config, dataset, tmp_path / "stopped")
    assert str(raised.value) == f"stopped by {number.name} at step 7; a checkpoint is saved"
    assert raised.value.exit_code == 128 + number
    assert signal.getsignal(number) == handler
    fit(config, dataset, tmp_path / "stopped", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("step", [3, 4 * (72 // 16) - 1])
def test_a_signal_in_an_epochs_last_step_loses_nothing(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The epoch's line is written; in the run's last step there is nothing left to stop."""
    fit(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_step(patch, step, lambda: signal.raise_signal(signal.SIGTERM))
        if step == 3:
            with pytest.raises(Interrupted):
                fit(config, dataset, tmp_path / "stopped")
        else:
            done = fit(config, dataset, tmp_path / "stopped")
            assert done.progress.step == step + 1
    lines = [line for line in metrics(tmp_path / "stopped") if line["kind"] == "epoch"]
    assert len(lines) == (1 if step == 3 else 4)
    fit(config, dataset, tmp_path / "stopped", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a checkpoint a resumed run starts at its beginning, and leftovers of the kill are cleared."""
    fit(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_step(patch, 2, kill)
        with pytest.raises(Killed):
            fit(config, dataset, tmp_path / "killed")
    (tmp_path / "killed" / ".checkpoint.safetensors.0123.tmp").write_bytes(b"half")
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "st')
    fit(config, dataset, tmp_path / "killed", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "killed")
    assert not list((tmp_path / "killed").glob(".*"))


def test_a_finished_run_resumes_to_itself(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """Resuming a finished run trains nothing and gives the same figures."""
    first = fit(config, dataset, tmp_path / "run")
    again = fit(config, dataset, tmp_path / "run", resume=True)
    assert again.evaluation == first.evaluation


def test_other_settings_do_not_resume(
    config: Config, dataset: Dataset, tmp_path: Path, fitted: tuple[Fitted, Dataset]
) -> None:
    """A resume with another setting is refused by its name; where the data lie may differ."""
    fit(config, dataset, tmp_path / "run")
    with pytest.raises(BadRun, match="has latent_dim=4, not 5: resume it with its own settings"):
        fit(dataclasses.replace(config, latent_dim=5), dataset, tmp_path / "run", resume=True)
    fit(dataclasses.replace(config, data_root="elsewhere"), dataset, tmp_path / "run", resume=True)


def test_other_settings_are_refused_before_the_data_are_read(
    config: Config, fitted: tuple[Fitted, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resume with another setting does not first read a large data set."""

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr("convvae_trainer.commands.fit.load_dataset", read)
    options: dict[str, Any] = {"resume": True, "download": False, "target": None, "command": ""}
    with pytest.raises(BadRun, match="has latent_dim=4, not 5: resume it with its own settings"):
        run_fit(
            dataclasses.replace(config, latent_dim=5),
            fitted[0].run.path,
            console=Console(quiet=True),
            **options,
        )


def test_other_images_do_not_resume(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """A resume with changed images is refused."""
    fit(config, dataset, tmp_path / "run")
    changed = dataclasses.replace(dataset, test=255 - dataset.test)
    with pytest.raises(BadRun, match="are not the images of the run in"):
        fit(config, changed, tmp_path / "run", resume=True)


def test_nothing_is_overwritten(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """A folder that holds a run, or anything else, is refused; so is a file, and a resume of no run."""
    fit(config, dataset, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(BadRun, match="already holds a run: --resume continues it"):
        fit(config, dataset, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    with pytest.raises(BadRun, match="is not empty and holds no run"):
        fit(config, dataset, tmp_path)
    with pytest.raises(BadRun, match=r"blobs\.npy is a file"):
        fit(config, dataset, tmp_path / "blobs.npy")
    with pytest.raises(BadRun, match=r"run folder .*absent does not exist"):
        fit(config, dataset, tmp_path / "absent", resume=True)


def test_a_checkpoint_of_other_networks_is_refused(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """A checkpoint that does not fit its settings is refused, not half loaded."""
    config = dataclasses.replace(config, epochs=1)
    fit(config, dataset, tmp_path / "a")
    fit(dataclasses.replace(config, width=6), dataset, tmp_path / "b")
    data = (tmp_path / "a" / "checkpoint.safetensors").read_bytes()
    (tmp_path / "b" / "checkpoint.safetensors").write_bytes(data)
    with pytest.raises(BadRun, match="does not fit the networks of its own settings"):
        load_run(tmp_path / "b")


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
    """Of all segments together, since a resumed run prints them once; a run without any says nothing."""

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
    monkeypatch.setattr("convvae_trainer.runs.folder.RunFolder.log", lambda *_: None)
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


def test_a_full_disk_is_said_in_one_line(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a checkpoint cannot be written the run stops in words, and the last checkpoint is kept."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("convvae_trainer.runs.loop.write_checkpoint", full)
    with pytest.raises(
        BadRun, match="cannot be written: No space left on device; the last checkpoint is kept"
    ):
        fit(config, dataset, tmp_path / "run")


def test_minutes_end_the_run(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """With `minutes` the run ends when its time is over, wherever it is."""
    timed = dataclasses.replace(config, epochs=None, minutes=0.01)
    done = fit(timed, dataset, tmp_path / "run")
    assert 0.6 <= done.progress.elapsed_s < 5
    assert done.progress.step > 0


def test_averaged_weights_are_put_back(fitted: tuple[Fitted, Dataset]) -> None:
    """Evaluation uses the averaged weights, and leaves those in training as they were."""
    train_state = fitted[0].train_state
    before = train_state.model.encoder.head.weight.detach().clone()
    with train_state.ema.swapped_in():
        assert not torch.equal(before, train_state.model.encoder.head.weight)
    assert torch.equal(before, train_state.model.encoder.head.weight)


def test_schedules() -> None:
    """The rate warms up and falls to 2 %; the rate's weight rises over its epochs; orders differ by epoch."""
    config = Config(dataset="x", learning_rate=1.0, warmup_steps=10, kl_warmup_epochs=2, beta=0.5)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 50, 0.5) == pytest.approx(0.51)
    assert learning_rate(config, 100, 1.0) == pytest.approx(0.02)
    assert [effective_beta(config, epochs) for epochs in (0, 1, 2, 9)] == [0, 0.25, 0.5, 0.5]
    first, second = epoch_order(config, 0, 100), epoch_order(config, 1, 100)
    assert sorted(first.tolist()) == list(range(100))
    assert not torch.equal(first, second)
    assert torch.equal(first, epoch_order(config, 0, 100))


def test_seeds_differ(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """The same seed gives the same run, another seed another one."""
    short = dataclasses.replace(config, epochs=1)
    fit(short, dataset, tmp_path / "a")
    fit(short, load_dataset(short), tmp_path / "b")
    fit(dataclasses.replace(short, seed=1), dataset, tmp_path / "c")
    assert_same(tmp_path / "a", tmp_path / "b")
    name = "weights.model.encoder.head.weight"
    assert not torch.equal(final(tmp_path / "a")[name], final(tmp_path / "c")[name])


def test_the_precision_is_recorded_with_its_reason(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` follows from the hardware; a resumed run keeps it, also on other hardware."""
    auto = dataclasses.replace(config, precision="auto", epochs=1)
    monkeypatch.setattr("convvae_trainer.compute.precision._has_bf16", lambda _: True)
    done = fit(auto, dataset, tmp_path / "run")
    record = done.run.record
    assert (record.precision, record.reason) == ("bf16", "this CPU has bf16 instructions")
    assert record.threads == 1
    assert done.train_state.autocast is torch.bfloat16
    monkeypatch.setattr("convvae_trainer.compute.precision._has_bf16", lambda _: False)
    assert fit(auto, dataset, tmp_path / "run", resume=True).train_state.autocast is torch.bfloat16
    other = fit(auto, dataset, tmp_path / "other")
    assert (other.run.record.precision, other.train_state.autocast) == ("fp32", None)


def test_images_are_held_once(fitted: tuple[Fitted, Dataset]) -> None:
    """On a CPU training indexes the images where they lie, in colour too."""
    done, _ = fitted
    images = np.random.default_rng(0).integers(0, 256, (32, 12, 10, 3), dtype=np.uint8)
    train_state = TrainState(done.run.config, shape=(12, 10, 3), device=torch.device("cpu"))
    console = Console(quiet=True)
    context, run = training_parts(done.run.config, images, done.run.path, console=console)
    loop = TrainingLoop(
        context=context,
        run=run,
        train_state=train_state,
        progress=TrainProgress(),
        display=LiveDisplay(console, total_epochs=1),
        signals=[],
        board=None,
        checkpoint_every_s=20.0,
    )
    assert loop.images.data_ptr() == images.ctypes.data
