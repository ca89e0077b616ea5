"""A new objective is one class and one row of the table: nothing else of the trainer knows its name.

B = batch, C = channels, H and W = height and width, Z = latent dimension.
"""

import dataclasses
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from convvae_service.bundle import CAPABILITIES, read_bundle
from convvae_trainer.commands.evaluate import run_evaluate
from convvae_trainer.commands.export import run_export
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.errors import BadConfig, Interrupted
from convvae_trainer.objectives.base import Gradients, Objective, ParameterGroup, gradients_of
from convvae_trainer.objectives.bound import elbo_terms, rate_loss
from convvae_trainer.objectives.noise import NoiseSource
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.objectives import OBJECTIVES, ObjectiveRow
from support.interruption import before_step
from support.tiny_run import TINY, write_blobs

NAME = "vae-brightness"
OBJECTIVE = {"objective": NAME, "likelihood": "gaussian"}


class VaeBrightness(Objective):
    """A VAE that also reads the brightness of an image from its latents, after the first tenth of the run."""

    figures = ("brightness_error",)
    optimizers: ClassVar[dict[str, tuple[ParameterGroup, ...]]] = {
        "model": Objective.optimizers["model"],
        "brightness": (ParameterGroup(networks=("brightness",)),),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.brightness = nn.Linear(self.config.latent_dim, 1).to(self.setup.device)

    def extra_networks(self) -> dict[str, nn.Module]:
        return {"brightness": self.brightness}

    @classmethod
    def later_phase_start(cls, config: Any) -> float:  # noqa: ARG003
        return 0.1

    @classmethod
    def details(cls, config: Any) -> list[str]:
        return [*super().details(config), "brightness"]

    def gradients(
        self, x_BCHW: Tensor, *, noise: NoiseSource, beta: Tensor, is_later_phase: bool
    ) -> Gradients:
        noise_BZ = noise.normal(len(x_BCHW), self.config.latent_dim)
        terms = elbo_terms(self.model, self.likelihood, x_BCHW, noise_BZ, autocast=self.setup.autocast)
        rate = rate_loss(terms, beta=beta, free_bits=self.config.free_bits, average=self.setup.average)
        loss = terms.distortion.mean() + rate
        figures = {}
        networks = ["encoder", "decoder", "likelihood"]
        if is_later_phase:
            error_B = self.brightness(terms.mean).flatten() - x_BCHW.flatten(1).mean(1)
            figures["brightness_error"] = error_B.square().mean()
            loss = loss + figures["brightness_error"]
            networks.append("brightness")
        gradients = gradients_of(loss, *(self.parameters(name) for name in networks))
        return Gradients(
            by_network=dict(zip(networks, gradients, strict=True)),
            loss=loss.detach(),
            terms=terms,
            figures={name: figure.detach() for name, figure in figures.items()},
        )


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the objective to the table."""
    monkeypatch.setitem(
        OBJECTIVES,
        NAME,
        ObjectiveRow(
            class_path=f"{__name__}:{VaeBrightness.__name__}",
            help="A VAE that also reads the brightness of an image from its latents.",
            settings=("beta", "free_bits"),
            defaults={"likelihood": "gaussian"},
            needs={"likelihood": "gaussian"},
        ),
    )


@pytest.mark.usefixtures("row")
def test_a_new_objective_is_trained_resumed_evaluated_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted run of it ends with the weights of a run in one piece, bit by bit."""
    config = config_from({"dataset": str(write_blobs(tmp_path / "blobs.npy"))}, TINY, OBJECTIVE)
    assert config.likelihood == "gaussian"
    dataset = load_dataset(config)
    whole = fit(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_step(patch, 7, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            fit(config, dataset, tmp_path / "run")
    resumed = fit(config, dataset, tmp_path / "run", resume=True)
    expected, tensors = whole.train_state.tensors(), resumed.train_state.tensors()
    assert "weights.brightness.weight" in tensors
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())
    epochs = [line for line in whole.run.read_metrics() if line["kind"] == "epoch"]
    assert epochs[-1]["brightness_error"] < epochs[0]["brightness_error"]
    assert whole.train_state.objective.describe(config) == (
        f"{NAME}, gaussian likelihood, beta 1, brightness"
    )
    assert run_evaluate(tmp_path / "run").bound.elbo == pytest.approx(whole.evaluation.bound.elbo)
    exported = run_export(tmp_path / "run", models=tmp_path / "models", name="blobs")
    manifest = read_bundle(exported.folder).manifest
    assert (manifest.objective, manifest.capabilities) == (NAME, CAPABILITIES)


@pytest.mark.usefixtures("row")
def test_its_row_says_which_settings_it_takes(tmp_path: Path) -> None:
    """The row decides what the settings refuse."""
    config = config_from({"dataset": str(tmp_path), "objective": NAME, "beta": 2.0})
    assert config.beta == 2.0
    with pytest.raises(BadConfig, match=r"gan_share=0\.5 is not used by objective=vae-brightness"):
        dataclasses.replace(config, gan_share=0.5)
    with pytest.raises(BadConfig, match="needs likelihood=gaussian"):
        config_from({"dataset": str(tmp_path), "objective": NAME, "likelihood": "bernoulli"})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_row_is_complete(name: str) -> None:
    """A row names a class that exists, and settings and defaults of `Config`."""
    assert issubclass(objective_class(name), Objective)
    row, settings = OBJECTIVES[name], {field.name for field in dataclasses.fields(Config)}
    assert {*row.settings, *row.defaults, *row.needs} <= settings
    assert row.help.endswith(".")
