"""The images, built from the working tree without a Docker engine: `make image-test`.

A plain `pytest` collects no file of this folder: a build takes minutes, and needs root and Debian's buildah
and debootstrap.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.container import BUILDAH, Image, Mount, buildah, inspect
from support.tiny_bundle import publish_tiny

COMPUTE = os.environ.get("COMPUTE", "cpu")
BUILD_TIMEOUT_S = 3600.0


@contextmanager
def built(part: str, name: str) -> Iterator[Image]:
    """Build an image, and mount its files while the tests run."""
    # This environment's Python has pip, which the system's may lack.
    environ = os.environ | {"PART": part, "PYTHON": sys.executable}
    program = BUILDAH.with_name("build-image")
    subprocess.run([program, name], env=environ, check=True, timeout=BUILD_TIMEOUT_S)
    container = buildah("from", "--pull-never", name)
    try:
        yield Image(config=inspect(name), root=Path(buildah("mount", container)))
    finally:
        buildah("rm", container)


@pytest.fixture(scope="session")
def service_image() -> Iterator[Image]:
    """The image of deploy/service.Dockerfile."""
    with built("service", f"localhost/convvae:{COMPUTE}") as image:
        yield image


@pytest.fixture(scope="session")
def trainer_image() -> Iterator[Image]:
    """The image of deploy/trainer.Dockerfile."""
    with built("trainer", f"localhost/convvae-trainer:{COMPUTE}") as image:
        yield image


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mount:
    """A repository with the model `tiny`, readable by others as a mounted volume must be."""
    root = tmp_path_factory.mktemp("models")
    publish_tiny(root)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Mount(root, "/models")
