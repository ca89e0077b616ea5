"""References to published versions: which are found, and which are refused."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from convvae_service.bundle import BundleError
from convvae_trainer.compare.bundle_model import open_model
from convvae_trainer.compare.published import check_same_shape, find_versions
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig


def test_versions_are_found_and_told_apart(published_pair: tuple[Path, Dataset], tmp_path: Path) -> None:
    """The highest version is the default; a name that is compared with itself carries its version."""
    root, _ = published_pair
    shutil.copytree(root / "blobs" / "1", tmp_path / "blobs" / "1")
    shutil.copytree(root / "blobs" / "1", tmp_path / "blobs" / "2")
    assert [one.version for one in find_versions([str(tmp_path / "blobs")])] == [2]
    both = find_versions([str(tmp_path / "blobs@1"), str(tmp_path / "blobs")])
    assert [one.label for one in both] == ["blobs@1", "blobs@2"]
    elsewhere = find_versions([str(tmp_path / "blobs@1"), str(root / "blobs")])
    assert [one.label for one in elsewhere] == [f"{tmp_path.name}/blobs@1", f"{root.name}/blobs@1"]


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (["{root}/nothing"], "nothing': there is "),
        (["{root}"], "no model is published at '"),
        (["{root}/blobs@7"], "blobs' has no version '7': it has 1"),
        (["{root}/blobs@x"], "blobs' has no version 'x'"),
        (["{root}/blobs@²"], "blobs' has no version '²'"),
        (["{root}/blobs", "{root}/blobs@1"], "blobs@1 is given twice"),
    ],
)
def test_models_that_are_none_are_refused(
    published_pair: tuple[Path, Dataset], references: list[str], message: str
) -> None:
    """The line says which there are."""
    with pytest.raises(BadConfig) as raised:
        find_versions([reference.format(root=published_pair[0]) for reference in references])
    assert message in str(raised.value)


def test_a_damaged_graph_is_named(published_pair: tuple[Path, Dataset], tmp_path: Path) -> None:
    """A bundle is verified before its graphs run."""
    folder = tmp_path / "blobs" / "1"
    shutil.copytree(published_pair[0] / "blobs" / "1", folder)
    data = bytearray((folder / "decoder.onnx").read_bytes())
    data[100] ^= 1
    (folder / "decoder.onnx").write_bytes(data)
    (published,) = find_versions([str(tmp_path / "blobs")])
    with pytest.raises(BundleError, match=r"blobs/1: decoder.onnx is damaged"):
        open_model(published)


def test_models_of_other_shapes_are_refused() -> None:
    """Both shapes are named."""
    one, other = (
        SimpleNamespace(label=label, manifest=SimpleNamespace(image=image))
        for label, image in (("a", "12x10x1"), ("b", "16x16x1"))
    )
    models: Any = [one, other]
    with pytest.raises(BundleError, match=r"images of a are 12x10x1, images of b are 16x16x1"):
        check_same_shape(models)
    check_same_shape(models[:1] * 2)
