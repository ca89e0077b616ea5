"""A run that has not ended is published only on request, and says so; the end is one checkpoint."""

import io
import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from convvae_service.bundle import list_versions, read_bundle
from convvae_trainer.commands.export import run_export
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import BadRun, Interrupted
from convvae_trainer.evaluation.options import EvalOptions
from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.runs.fit import fit
from convvae_trainer.runs.progress import TrainProgress, fraction_done
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState
from support.commands import evaluated, run_train
from support.interruption import Killed, before_step
from support.run_comparison import assert_same
from support.tiny_run import tiny

STEPS = 4 * (72 // 16)


def exported(run_dir: Path, models: Path, **more: Any) -> Any:
    return run_export(run_dir, models=models, name="blobs", **more)


def stop(config: Config, dataset: Dataset, run_dir: Path, *, step: int) -> None:
    """Train up to a step, and be stopped there."""
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, step - 1, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            fit(config, dataset, run_dir)


@pytest.mark.slow
def test_a_run_that_has_not_ended_is_refused(
    config: Config,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line has how much is done and the command that goes on, which can be pasted."""
    run_dir, models = tmp_path / "a run", tmp_path / "models"
    stop(config, dataset, run_dir, step=STEPS // 4)
    words = ["export", str(run_dir), "--models", str(models), "--name", "blobs"]
    assert run_train(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the run has not ended (25 % of its training is done): convvae-train fit")
    assert error.endswith(", or export it as it is with --unfinished\n")
    assert not models.exists()
    resume = shlex.split(error.partition("is done): ")[2].partition(", or export")[0])
    assert run_train(monkeypatch, *resume[1:]) == 0
    assert run_train(monkeypatch, *words) == 0
    assert "nfinished" not in (models / "blobs" / "1" / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_an_unfinished_version_says_so(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """Manifest and card have the share of the training; the figures are of the very weights."""
    stop(config, dataset, tmp_path / "run", step=STEPS // 4 + 1)
    version = exported(tmp_path / "run", tmp_path / "models", unfinished=True)
    metrics = read_bundle(version.folder).manifest.training.metrics
    assert metrics["training_share_done"] == 0.312
    assert metrics["test_elbo_nats"] < 0
    card = (version.folder / "MODEL_CARD.md").read_text()
    assert "**Unfinished**: 31.2% of the training is done" in card
    assert read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]["progress"]["step"] == 5


def test_a_gans_first_phase_is_not_published(dataset: Dataset, tmp_path: Path) -> None:
    """A vae-disl that trains its GAN still has an encoder that has learned nothing."""
    settings = tiny(objective="vae-disl", gan_share=0.5)
    config = config_from({"dataset": dataset.name, **settings})
    stop(config, dataset, tmp_path / "run", step=STEPS // 4)
    with pytest.raises(BadRun, match="no trained encoder before 50 %: convvae-train fit --resume"):
        exported(tmp_path / "run", tmp_path / "models", unfinished=True)
    assert list_versions(tmp_path / "models", "blobs") == []
    with pytest.raises(BadRun, match="no trained encoder before 50 %: convvae-train fit --resume"):
        evaluated(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"objective": "vae-gan"}, {"early_stop_epochs": 4, "validation_share": 0.1}], ids=str
)
def test_an_unfinished_run_is_scored_as_it_is_published(
    dataset: Dataset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The figures are of the weights that export takes; a line says how far the run is; nothing is kept."""
    config = config_from({"dataset": dataset.name, **tiny(**settings)})
    stop(config, load_dataset(config), tmp_path / "run", step=6)
    version = exported(tmp_path / "run", tmp_path / "models", unfinished=True)
    screen = io.StringIO()
    options = EvalOptions(importance_samples=2)
    found = evaluated(tmp_path / "run", options=options, console=Console(file=screen, width=200))
    assert found.bound.elbo == read_bundle(version.folder).manifest.training.metrics["test_elbo_nats"]
    assert "the run has not ended (" in screen.getvalue()
    assert "not kept in the run folder: the run has not ended" in screen.getvalue()
    assert not (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.slow
def test_an_unfinished_version_has_the_best_weights_and_the_fitted_sigma(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work after the last step is done to the weights that are exported, and not to the run."""
    sizes: list[int] = []

    def noted(_: TrainState, images: NDArray[np.uint8]) -> None:
        sizes.append(len(images))

    monkeypatch.setattr("convvae_trainer.runs.training.fit_sigma", noted)
    config = config_from({"dataset": dataset.name, **tiny(objective="vae-gan")})
    stop(config, dataset, tmp_path / "gan", step=6)
    before = (tmp_path / "gan" / "checkpoint.safetensors").read_bytes()
    exported(tmp_path / "gan", tmp_path / "models", unfinished=True)
    assert sizes == [len(dataset.train)]
    assert (tmp_path / "gan" / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"objective": "vae-gan"}, {"objective": "vae-disl"}, {"early_stop_epochs": 4, "validation_share": 0.1}],
)
def test_a_kill_before_the_last_checkpoint_leaves_no_end(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Weights that still lack their sigma, or the best of them, are not taken for the end by export."""
    config = config_from({"dataset": dataset.name, **tiny(**settings)})
    data = load_dataset(config)
    fit(config, data, tmp_path / "whole")

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("convvae_trainer.runs.training.finish", die)
        with pytest.raises(Killed):
            fit(config, data, tmp_path / "killed", checkpoint_every_s=0)
    progress = TrainProgress(**read_checkpoint(tmp_path / "killed" / "checkpoint.safetensors")[1]["progress"])
    assert (fraction_done(config, progress, len(data.train)), progress.is_finished) == (1.0, False)
    with pytest.raises(BadRun, match="the run has not ended"):
        exported(tmp_path / "killed", tmp_path / "models")
    fit(config, data, tmp_path / "killed", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "killed")
    assert exported(tmp_path / "killed", tmp_path / "models").folder.name == "1"
