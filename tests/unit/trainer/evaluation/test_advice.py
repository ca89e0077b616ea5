"""Advice: a run that has not learned what it could gets a line, and a healthy one gets none."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import convvae_trainer
from convvae_trainer.cli.results import print_evaluation
from convvae_trainer.commands.export import run_export
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.evaluation.advice import constant_advice, loss_advice, posterior_advice, short_advice
from convvae_trainer.evaluation.bound import BoundMetrics
from convvae_trainer.evaluation.metrics import Evaluation
from convvae_trainer.networks.likelihoods import LOG_SIGMA_RANGE
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState
from support.commands import evaluated

SMALL: dict[str, Any] = {
    "dataset": "digits",
    "image_size": (8, 8),
    "width": 8,
    "hidden": 64,
    "latent_dim": 8,
    "batch_size": 64,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
    "tensorboard": False,
}
COLLAPSED = "the posterior has collapsed: no latent dimension carries information"
FALLS = "the loss still falls: the second half of the training brought"


def trained(run_dir: Path, dataset: Dataset | None = None, **settings: Any) -> Fitted:
    config = Config(**{**SMALL, **settings})
    return fit(config, dataset or load_dataset(config), run_dir)


def starts(advice: tuple[str, ...]) -> list[str]:
    return [next((known for known in (COLLAPSED, FALLS) if line.startswith(known)), line) for line in advice]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["vae", "ae"])
def test_a_healthy_run_gets_no_advice(tmp_path: Path, objective: str) -> None:
    """Its latents are in use, its sigma is free, and its loss has come to rest."""
    found = trained(tmp_path / "run", objective=objective, epochs=30).evaluation
    assert found.advice == ()
    assert found.to_json_object()["advice"] == []
    assert found.reconstruction.ssim > 0.7


@pytest.mark.slow
def test_a_large_beta_collapses_the_posterior(tmp_path: Path) -> None:
    """The run, a later evaluation, the run folder, the manifest and the model card have the line."""
    found = trained(tmp_path / "run", epochs=12, beta=1000.0).evaluation
    assert found.bound.active_units == 0
    assert COLLAPSED in starts(found.advice)
    kept = RunFolder.open(tmp_path / "run").read_evaluation()
    assert kept is not None
    assert kept["advice"] == list(found.advice) == list(evaluated(tmp_path / "run").advice)
    folder = run_export(tmp_path / "run", models=tmp_path / "m", name="x").folder
    metrics = json.loads((folder / "manifest.json").read_text())["training"]["metrics"]
    assert metrics["training_advice"] == list(found.advice)
    assert f"**Advice**: {COLLAPSED}" in (folder / "MODEL_CARD.md").read_text()
    assert f"advice        {COLLAPSED}" in printed(found)


def printed(evaluation: Evaluation) -> str:
    print_evaluation(Console(file=(screen := io.StringIO()), width=400), evaluation)
    return screen.getvalue()


@pytest.mark.slow
def test_images_that_are_almost_alike_bring_sigma_to_its_bound(tmp_path: Path) -> None:
    """Black images that differ in one pixel by one level are reconstructed without a visible error."""
    images = np.zeros((120, 12, 10, 1), np.uint8)
    images.reshape(120, 120)[np.diag_indices(120)] = 1
    dataset = Dataset(name="dark", split="", train=images[20:], test=images[:20])
    more = {"likelihood": "gaussian", "learning_rate": 2e-2, "epochs": 60, "batch_size": 32}
    found = trained(tmp_path / "run", dataset, **more).evaluation
    assert any(line.startswith("sigma is at its lower bound, 0.00039:") for line in found.advice)


def test_a_short_run_is_advised_to_train_longer(tmp_path: Path) -> None:
    """Two epochs of digits are too few, though they have 200 steps."""
    found = trained(tmp_path / "run", epochs=2, batch_size=16, learning_rate=5e-4).evaluation
    assert FALLS in starts(found.advice)


def test_a_run_that_has_hardly_begun_is_not_called_collapsed(tmp_path: Path) -> None:
    """A few steps give one line, on their number, in place of those on posterior and loss."""
    found = trained(tmp_path / "run", epochs=1, beta=1000.0).evaluation
    assert found.bound.active_units == 0
    (line,) = found.advice
    assert line.startswith("the training had only 24 steps, too few to learn much: train longer")


def test_a_few_steps_from_trained_weights_are_enough(tmp_path: Path) -> None:
    """A run that begins with the weights of another one is not told that it is short, by no command."""
    settings = {**SMALL, "epochs": 1, "progress": False}
    first = convvae_trainer.fit(**settings, run_dir=tmp_path / "run")
    finer = convvae_trainer.fit(**settings, run_dir=tmp_path / "finer", start_from=first)
    assert any("steps" in line for line in first.evaluation.advice)
    assert not any("steps" in line for line in finer.evaluation.advice)
    assert evaluated(tmp_path / "finer").advice == finer.evaluation.advice


def test_few_steps_are_told_from_few_epochs() -> None:
    """The number of steps decides; a run without epochs, and lines without steps, say nothing."""
    assert list(short_advice([{"step": 40}, {"step": 99}])) != []
    for epochs in ([{"step": 100}], [{"step": 50}, {"step": 100}], [{"distortion": 1.0}], []):
        assert list(short_advice(epochs)) == []


def test_few_active_units_are_named(fitted: tuple[Fitted, Dataset]) -> None:
    """A tenth of the dimensions is enough; an autoencoder's codes have no unit, so it gets no line."""
    bound = fitted[0].evaluation.bound
    for active, latent_dim, count in ((1, 32, 1), (3, 32, 1), (4, 32, 0), (1, 2, 0), (0, 2, 1)):
        changed = dataclasses.replace(bound, active_units=active, latent_dim=latent_dim)
        lines = list(posterior_advice(changed))
        assert len(lines) == count
        assert all((f"only {active} of {latent_dim} latent" in line) == (active > 0) for line in lines)
    without_rate: BoundMetrics = dataclasses.replace(bound, active_units=0, rate=None, elbo=None)
    assert list(posterior_advice(without_rate)) == []


@pytest.mark.parametrize(("likelihood", "name"), [("gaussian", "sigma"), ("discretised-logistic", "scale")])
def test_a_learned_constant_at_a_bound_is_named(likelihood: Any, name: str) -> None:
    """A constant inside of its range, and a sigma that was given, get no line."""
    config = Config(dataset="x", likelihood=likelihood, width=4, hidden=8, latent_dim=3)
    state = TrainState(config, shape=(8, 8, 1), device=torch.device("cpu"))
    assert list(constant_advice(state)) == []
    for bound, word in zip(LOG_SIGMA_RANGE, ("lower", "upper"), strict=True):
        with torch.no_grad():
            getattr(state.likelihood, f"log_{name}").fill_(bound)
        (line,) = constant_advice(state)
        assert line.startswith(f"{name} is at its {word} bound")
    fixed = Config(dataset="x", likelihood="gaussian", sigma=1.0, width=4, hidden=8, latent_dim=3)
    assert list(constant_advice(TrainState(fixed, shape=(8, 8, 1), device=torch.device("cpu")))) == []


def test_the_loss_is_judged_by_its_second_half() -> None:
    """Training and validation must both still fall; one epoch, a rise and a gap say nothing."""

    def lines(*losses: float | None, prefix: str = "") -> list[dict[str, Any]]:
        return [{f"{prefix}distortion": loss, f"{prefix}rate": 0.0} for loss in losses]

    falling, resting = (100, 90, 80, 70, 60, 50), (100, 60, 52, 51, 50, 50)
    assert next(iter(loss_advice(lines(*falling)))).startswith(f"{FALLS} 60% of the gain")
    for losses in (resting, (100,), (), (50, 100), (100, None, 50), (100, 100)):
        assert list(loss_advice(lines(*losses))) == []
    overfitted = zip(lines(*falling), lines(*resting, prefix="validation_"), strict=True)
    assert list(loss_advice([{**train, **validation} for train, validation in overfitted])) == []
    by_rate = [{"distortion": 50.0, "rate": rate} for rate in falling]
    assert list(loss_advice(by_rate)) != []
    assert list(loss_advice(by_rate, beta=0.0)) == []
