"""Runs that were stopped or killed go on bit by bit, and on nothing but their own settings and images."""

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from convvae_trainer.commands.fit import run_fit
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadRun, Interrupted
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from support.interruption import Killed, before_step, kill
from support.run_comparison import assert_same, final, metrics
from support.tiny_run import tiny


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
    config = config_from({"dataset": config.dataset, **tiny(**settings)})
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
    config = config_from({"dataset": config.dataset, **tiny(objective=objective, **starts)})
    fit(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_step(patch, step, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            fit(config, dataset, tmp_path / "stopped")
    names = final(tmp_path / "stopped")
    assert any(name.startswith("optimizer.exp_avg.discriminator.") for name in names)
    fit(config, dataset, tmp_path / "stopped", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_resume(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Each signal saves in the middle of an epoch; the resumed run is bit by bit the whole one."""
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


def test_a_checkpoint_of_other_networks_is_refused(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """A checkpoint that does not fit its settings is refused, not half loaded."""
    config = dataclasses.replace(config, epochs=1)
    fit(config, dataset, tmp_path / "a")
    fit(dataclasses.replace(config, width=6), dataset, tmp_path / "b")
    data = (tmp_path / "a" / "checkpoint.safetensors").read_bytes()
    (tmp_path / "b" / "checkpoint.safetensors").write_bytes(data)
    with pytest.raises(BadRun, match="does not fit the networks of its own settings"):
        load_run(tmp_path / "b")
