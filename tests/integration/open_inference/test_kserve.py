"""The Open Inference Protocol by KServe's own Python client, with one bundle as KServe mounts it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae import Client
from support.serving import ServerProcess, serving
from support.tiny_bundle import SHAPE, publish_tiny
from support.wire import random_images

PYTHON = Path(__file__).parents[3] / ".tools" / "kserve-venv" / "bin" / "python"
PROGRAM = Path(__file__).parent / "kserve_program.py"
IMAGES = random_images(3, *SHAPE.as_tuple, seed=5)
# The name of an InferenceService.
NAME = "digits-vae"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, front: str) -> Iterator[ServerProcess]:
    """A server of a bundle at the path of a mount, whose folder has neither the model's name nor a number."""
    root = tmp_path_factory.mktemp("mnt")
    shutil.copytree(publish_tiny(root / "published"), root / "models")
    with serving(root / "models", "--model-name", NAME, "--front", front) as server:
        yield server


@pytest.fixture(scope="module")
def findings(server: ServerProcess) -> dict[str, Any]:
    """The findings of a program with KServe's client, step by step."""
    if not PYTHON.exists():
        pytest.skip("kserve is not in .tools: run `make tools`")
    done = subprocess.run(
        [PYTHON, "-I", PROGRAM, server.target, NAME], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_kserve_asks_for_health(findings: dict[str, Any]) -> None:
    """The server is ready, and so is the service by its own name and each of its graphs."""
    assert findings["server"] == [True, True]
    assert findings["ready"].pop("absent") is False
    assert findings["ready"] == {NAME: True, f"{NAME}.encoder": True, f"{NAME}.decoder": True}


def test_kserve_calls_the_service_by_its_name(server: ServerProcess, findings: dict[str, Any]) -> None:
    """The service's own name is its encoder: the vectors are those of the native API."""
    with Client(server.target, model=NAME) as vae:
        encoded = vae.encode(IMAGES)
    for asked in ("plain", "encoder"):
        found = findings[asked]
        assert found["id"] == "by kserve"
        np.testing.assert_allclose(found["outputs"]["mean"], encoded.mean, rtol=1e-5, atol=1e-6)
        assert found["outputs"].keys() == {"mean", "log_variance"}
    assert findings["plain"]["model"] == NAME
    assert findings["encoder"]["model"] == f"{NAME}.encoder"


def test_kserve_decodes(server: ServerProcess, findings: dict[str, Any]) -> None:
    """The decoder has a name of its own."""
    with Client(server.target) as vae:
        images = vae.decode(np.ones((2, 4), np.float32)).images
    np.testing.assert_array_equal(findings["decoder"]["outputs"]["image"], images)


def test_kserve_hears_of_a_model_that_is_not_there(findings: dict[str, Any]) -> None:
    """The message names it."""
    assert "no model 'absent' on this server" in findings["absent"]
