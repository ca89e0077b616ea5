"""Fixtures for all tests: tiny bundles and a server of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from convvae_service.bundle import ImageShape
from serving import ServerProcess, serving
from tiny_bundle import GAUSSIAN, publish_tiny


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model, `tiny`: 8x6x1, latent 4, Bernoulli."""
    root = tmp_path_factory.mktemp("tiny-models")
    publish_tiny(root)
    return root


@pytest.fixture(scope="session")
def zoo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `tiny` (two versions), `colour` (10x12x3, latent 6, Gaussian), `plain` (an `ae`)."""
    root = tmp_path_factory.mktemp("zoo-models")
    publish_tiny(root)
    publish_tiny(root, seed=1)
    publish_tiny(
        root, "colour", shape=ImageShape(height=10, width=12, channels=3), latent_dim=6, likelihood=GAUSSIAN
    )
    publish_tiny(root, "plain", objective="ae")
    return root


@pytest.fixture(scope="session")
def tiny_server(tiny_root: Path) -> Iterator[ServerProcess]:
    """A server of `tiny_root` with default limits, shared by all tests that leave it as it is."""
    with serving(tiny_root) as server:
        yield server


@pytest.fixture(scope="session")
def zoo_server(zoo_root: Path) -> Iterator[ServerProcess]:
    """A server of `zoo_root` with default limits, shared by all tests that leave it as it is."""
    with serving(zoo_root) as server:
        yield server
