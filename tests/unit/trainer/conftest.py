"""A tiny data set and settings that train in a second."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from convvae_trainer.compute.process import configure_process
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.exports.publish import Exported
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.settings.config import Config
from support.tiny_run import TINY, export_fitted, write_blobs


@pytest.fixture(scope="session", autouse=True)
def configured() -> None:
    """Configure this process as the commands do, with one thread, since tests run side by side."""
    configure_process(threads=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Restore the one thread that a test may have changed."""
    yield
    configure_process(threads=1)


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """A .npy file of 80 grey images, 12x10, each a bright rectangle somewhere."""
    return write_blobs(tmp_path / "blobs.npy")


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
def published_blobs(
    fitted: tuple[Fitted, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Exported]:
    """A repository with the finished run as `blobs`, and what `export` returned; to be read only."""
    models = tmp_path_factory.mktemp("published") / "models"
    return models, export_fitted(fitted, models)


@pytest.fixture(scope="session")
def published_pair(
    fitted: tuple[Fitted, Dataset],
    published_blobs: tuple[Path, Exported],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Dataset]:
    """A repository with `blobs`, a vae, and `blobs-ae`, an autoencoder, and their data; to be read only."""
    models, dataset = published_blobs[0], fitted[1]
    config = Config(dataset=dataset.name, objective="ae", **TINY)
    autoencoder = fit(config, dataset, tmp_path_factory.mktemp("ae") / "run")
    export_fitted((autoencoder, dataset), models, "blobs-ae")
    return models, dataset
