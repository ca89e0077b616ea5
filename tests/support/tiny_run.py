"""A tiny data set, and settings that train on it in a second."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.exports.publish import Exported, export
from convvae_trainer.runs.fit import Fitted
from convvae_trainer.settings.objectives import OBJECTIVES

TINY: dict[str, Any] = {
    "likelihood": "bernoulli",
    "width": 4,
    "hidden": 16,
    "latent_dim": 4,
    "batch_size": 16,
    "epochs": 4,
    "validation_share": 0.0,
    "precision": "fp32",
    "threads": 1,
    "device": "cpu",
}


def tiny(**settings: Any) -> dict[str, Any]:
    """Return the settings of a tiny run with others on top. An objective has the likelihood that it needs."""
    return {**TINY, **OBJECTIVES[settings.get("objective", "vae")].needs, **settings}


# The same as flags of `convvae-train fit`, for one epoch of a single step.
SHORT = [
    *("--width", "4", "--hidden", "16", "--latent-dim", "4"),
    *("--epochs", "1", "--precision", "fp32", "--threads", "1"),
]
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"
)


def export_fitted(fitted: tuple[Fitted, Dataset], models: Path, name: str = "blobs") -> Exported:
    """Publish a run and its data as the next version of `name`."""
    done, dataset = fitted
    figures = done.evaluation.to_json_object()
    return export(done.run, done.train_state, dataset, done.progress, figures, models=models, name=name)


def write_blobs(path: Path, *, count: int = 80, shape: tuple[int, ...] = (12, 10)) -> Path:
    """Write `count` images of this shape, each with a bright rectangle somewhere; return the path."""
    random = np.random.default_rng(0)
    images = np.zeros((count, *shape), dtype=np.uint8)
    for image in images:
        top, left = random.integers(0, shape[0] - 3), random.integers(0, shape[1] - 3)
        image[top : top + 4, left : left + 4] = random.integers(100, 256)
    np.save(path, images)
    return path
