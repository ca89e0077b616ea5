"""A tiny data set and settings that train in a second."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.settings.config import Config

TINY: dict[str, Any] = {
    "width": 4,
    "hidden": 16,
    "latent_dim": 4,
    "batch_size": 16,
    "epochs": 4,
    "precision": "fp32",
    "threads": 1,
    "device": "cpu",
}
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks on one thread: tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """A .npy file of 80 grey images, 12x10, each a bright rectangle somewhere."""
    return write_blobs(tmp_path / "blobs.npy")


def write_blobs(path: Path, *, count: int = 80, shape: tuple[int, ...] = (12, 10)) -> Path:
    random = np.random.default_rng(0)
    images = np.zeros((count, *shape), dtype=np.uint8)
    for image in images:
        top, left = random.integers(0, shape[0] - 3), random.integers(0, shape[1] - 3)
        image[top : top + 4, left : left + 4] = random.integers(100, 256)
    np.save(path, images)
    return path


@pytest.fixture
def config(blobs: Path) -> Config:
    """Settings of a run on `blobs`."""
    return Config(dataset=str(blobs), **TINY)


@pytest.fixture
def dataset(config: Config) -> Dataset:
    """The images of `blobs`."""
    return load_dataset(config)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, Dataset]:
    """A finished run on `blobs`, and its data; to be read only."""
    folder = tmp_path_factory.mktemp("fitted")
    config = Config(dataset=str(write_blobs(folder / "blobs.npy")), **TINY)
    dataset = load_dataset(config)
    return fit(config, dataset, folder / "run", command="convvae-train fit"), dataset


@pytest.fixture(scope="session")
def published_pair(
    fitted: tuple[Fitted, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Dataset]:
    """A repository with `blobs`, a vae, and `blobs-ae`, an autoencoder, and their data; to be read only."""
    from convvae_trainer.export.publish import export

    folder = tmp_path_factory.mktemp("published")
    done, dataset = fitted
    config = Config(dataset=dataset.name, objective="ae", **TINY)
    for name, run in (("blobs", done), ("blobs-ae", fit(config, dataset, folder / "ae"))):
        figures = run.evaluation.to_json_object()
        export(run.run, run.train_state, dataset, run.progress, figures, models=folder / "models", name=name)
    return folder / "models", dataset
