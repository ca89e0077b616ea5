"""Bits per dimension: only of a likelihood that is a probability of pixels."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae_trainer.commands.export import run_export
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.runs.fit import fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.settings.config import Config
from support.commands import evaluated
from support.tiny_run import TINY

GREY = np.random.default_rng(0).integers(256, size=(40, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    ("settings", "images", "reason"),
    [
        ({"likelihood": "discretised-logistic"}, GREY, ""),
        ({"likelihood": "bernoulli", "binarize": "dynamic"}, GREY, ""),
        ({"likelihood": "bernoulli"}, GREY // 128 * 255, ""),
        ({"likelihood": "bernoulli"}, GREY, "a probability of black and white pixels only"),
        ({"likelihood": "gaussian"}, GREY, "a density of pixels"),
        ({"likelihood": "gaussian"}, GREY // 128 * 255, "a density of pixels"),
        ({"objective": "ae", "likelihood": "discretised-logistic"}, GREY, "an autoencoder has no rate"),
    ],
)
def test_bits_are_there_only_where_they_mean_something(
    tmp_path: Path, settings: dict[str, Any], images: np.ndarray, reason: str
) -> None:
    """Figures, run folder, manifest and model card have them, or null and the reason."""
    np.save(tmp_path / "images.npy", images)
    config = Config(
        dataset=str(tmp_path / "images.npy"), **{**TINY, "epochs": 1, "tensorboard": False, **settings}
    )
    fit(config, load_dataset(config), tmp_path / "run")
    bound = evaluated(tmp_path / "run").bound
    kept = RunFolder.open(tmp_path / "run").read_evaluation()
    assert kept is not None
    assert kept["bits_per_dim"] == bound.bits_per_dim
    assert kept["bits_per_dim_missing"] == bound.bits_per_dim_missing
    folder = run_export(tmp_path / "run", models=tmp_path / "m", name="x").folder
    metrics = json.loads((folder / "manifest.json").read_text())["training"]["metrics"]
    assert metrics["test_bits_per_dim"] == bound.bits_per_dim
    assert ("| Bits per dimension |" in (folder / "MODEL_CARD.md").read_text()) == (not reason)
    if reason:
        assert bound.bits_per_dim is None
        assert reason in bound.bits_per_dim_missing
    else:
        assert bound.elbo is not None
        assert bound.bits_per_dim == pytest.approx(-bound.elbo / (64 * math.log(2)))
        assert bound.bits_per_dim_missing == ""
