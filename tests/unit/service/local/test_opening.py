"""`open_model`: what it opens, and what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convvae_service
from convvae import InvalidInput, NotFound
from convvae_service import BundleError, LocalModel, open_model
from support.tiny_bundle import SHAPE, publish_tiny

IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SHAPE.as_tuple), np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two versions, the second one with int8 graphs."""
    root = tmp_path_factory.mktemp("models")
    publish_tiny(root)
    publish_tiny(root, seed=1, precisions=("fp32", "int8"))
    return root


def test_names_are_loaded_on_first_use() -> None:
    """The package lists its names, and refuses others."""
    assert set(convvae_service.__all__) <= set(dir(convvae_service))
    assert isinstance(convvae_service.LocalModel, type)
    with pytest.raises(AttributeError, match="no attribute 'open'"):
        convvae_service.open  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize(("reference", "version"), [("tiny", 2), ("tiny@1", 1), ("tiny@2", 2), ("tiny/1", 1)])
def test_every_reference_opens_its_version(root: Path, reference: str, version: int) -> None:
    """The highest version is opened, or the one that is named, by a string or a path."""
    for path in (root / reference, f"{root}/{reference}"):
        with open_model(path, device="cpu") as model:
            assert isinstance(model, LocalModel)
            assert (model.model().version, model.encode(IMAGES).version) == (version, version)
            assert repr(model) == (
                f"<LocalModel tiny@{version} (fp32): vae, images 8x6x1, 4 latent dimensions>"
            )


def test_the_precision_is_chosen(root: Path) -> None:
    """The graphs of the precision run, and the results name it."""
    with (
        open_model(root / "tiny", device="cpu") as exact,
        open_model(root / "tiny", precision="int8", device="cpu", threads=1) as quick,
    ):
        assert exact.encode(IMAGES).precision == "fp32"
        with open_model(root / "tiny", precision="auto", device="cpu") as default:
            assert default.model().precision == "fp32"
        answer = quick.encode(IMAGES)
        assert answer.precision == quick.model().precision == "int8"
        # The tiny model has other weights in each precision.
        assert not np.allclose(answer.mean, exact.encode(IMAGES).mean)


@pytest.mark.parametrize(
    ("reference", "options", "kind", "message"),
    [
        ("tyni", {}, NotFound, "no model is published"),
        ("tiny@7", {}, NotFound, "has no version '7': it has 1, 2"),
        ("tiny", {"precision": "fp8"}, InvalidInput, "precision is 'fp8'; it must be one of fp32"),
        ("tiny@1", {"precision": "int8"}, InvalidInput, "tiny@1 has no int8 graphs; it has fp32"),
        ("tiny", {"device": "gpu"}, InvalidInput, "device is 'gpu'; it must be auto, cpu"),
        ("tiny", {"threads": 0}, InvalidInput, "threads is 0; it must be at least 1"),
        ("tiny", {"max_pixels": 0}, InvalidInput, "max_pixels is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_opened_is_refused(
    root: Path, reference: str, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """Each error is one of the documented types and says what there is."""
    with pytest.raises(kind, match=message):
        open_model(root / reference, **options)


def test_a_damaged_version_is_refused(root: Path, tmp_path: Path) -> None:
    """A graph that differs from its checksum is found when the model is opened."""
    shutil.copytree(root / "tiny", tmp_path / "tiny")
    graph = tmp_path / "tiny" / "2" / "encoder.onnx"
    data = bytearray(graph.read_bytes())
    data[100] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BundleError, match=r"tiny@2: encoder.onnx is damaged"):
        open_model(tmp_path / "tiny")
