import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convvae_service.bundle import (
    BundleError,
    list_models,
    list_versions,
    publish,
    read_bundle,
    read_manifest,
)
from support.tiny_bundle import LATENT_DIM, SHAPE, decoder, encoder, publish_tiny


def test_versions_count_up(tmp_path: Path) -> None:
    """Each publication is the next version; a gap is not filled."""
    root = tmp_path / "models"
    assert [publish_tiny(root).name for _ in range(3)] == ["1", "2", "3"]
    shutil.rmtree(root / "tiny" / "2")
    assert publish_tiny(root).name == "4"
    assert list_versions(root, "tiny") == [1, 3, 4]
    assert list_models(root) == ["tiny"]


def test_publishers_do_not_collide(tmp_path: Path) -> None:
    """Publishers at the same time each get their own version."""
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: publish_tiny(tmp_path), range(16)))
    assert sorted(int(folder.name) for folder in folders) == list(range(1, 17))
    for folder in folders:
        read_bundle(folder)


def test_a_failed_publication_leaves_nothing(tmp_path: Path, version: Path) -> None:
    """A publication that fails before the rename leaves neither a version nor a temporary folder."""
    manifest = read_manifest(version)
    graphs = {"encoder.onnx": encoder(SHAPE, LATENT_DIM), "decoder.onnx": decoder(SHAPE, LATENT_DIM)}

    def refuse(folder: Path) -> None:
        assert (folder / "manifest.json").is_file()
        raise KeyboardInterrupt

    root = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        publish(root, manifest, graphs, before_rename=refuse)
    assert list((root / "tiny").iterdir()) == []


def test_graphs_that_the_manifest_does_not_list_are_not_published(tmp_path: Path, version: Path) -> None:
    """Publishing checks that names and checksums of manifest and files agree."""
    graphs = {"encoder.onnx": encoder(SHAPE, LATENT_DIM, seed=9), "decoder.onnx": decoder(SHAPE, LATENT_DIM)}
    with pytest.raises(BundleError, match="are not those of the manifest"):
        publish(tmp_path / "other", read_manifest(version), graphs)
    assert not (tmp_path / "other").exists()
