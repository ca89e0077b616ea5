"""The likelihood that follows from the images, where none is given."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.runs.fit import fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.likelihood_choice import chosen_likelihood
from convvae_trainer.settings.config import Config
from support.tiny_run import TINY

BINARY = np.random.default_rng(0).integers(2, size=(40, 8, 8, 1), dtype=np.uint8) * 255
GREY = np.random.default_rng(0).integers(256, size=(40, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "settings", "likelihood", "reason"),
    [
        (BINARY, {}, "bernoulli", "the images are binary: 100% of the variance of black and white pixels"),
        (GREY, {}, "gaussian", "the images have grey levels: 35% of the variance of black and white pixels"),
        (GREY, {"objective": "ae"}, "gaussian", "the images have grey levels"),
        (GREY, {"binarize": "dynamic"}, "bernoulli", "pixels are drawn to 0 and 1"),
        (BINARY, {"sigma": 0.1}, "gaussian", "sigma is given"),
        (BINARY, {"objective": "vae-gan"}, "gaussian", "vae-gan needs it"),
        (GREY, {"likelihood": "bernoulli"}, "bernoulli", ""),
        (BINARY, {"likelihood": "discretised-logistic"}, "discretised-logistic", ""),
    ],
)
def test_the_choice_and_its_reason(
    images: np.ndarray, settings: dict[str, Any], likelihood: str, reason: str
) -> None:
    """Other settings that need a likelihood decide first, then the images; what is given stays."""
    config, text = chosen_likelihood(Config(dataset="x", **settings), images)
    assert config.likelihood == likelihood
    assert text.startswith(reason)
    assert bool(text) == bool(reason)


def test_a_run_keeps_its_choice(tmp_path: Path) -> None:
    """The reason is printed, and the settings in the run folder have the choice, so a resume keeps it."""
    tiny = {**TINY, "likelihood": "auto", "epochs": 1, "tensorboard": False}
    config = Config(dataset="noise", **tiny)
    dataset = Dataset(name="noise", split="", train=GREY[2:], test=GREY[:2])
    console = Console(file=(screen := io.StringIO()), width=200)
    fitted = fit(config, dataset, tmp_path / "run", console=console)
    assert fitted.train_state.likelihood.name == "gaussian"
    assert "likelihood gaussian, since the images have grey levels" in screen.getvalue()
    assert RunFolder.open(tmp_path / "run").config.likelihood == "gaussian"
    resumed = fit(RunFolder.open(tmp_path / "run").config, dataset, tmp_path / "run", resume=True)
    assert resumed.run.config == fitted.run.config
