import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from convvae_service.bundle import (
    BundleError,
    list_models,
    list_versions,
    publish,
    read_bundle,
    read_manifest,
    sync_folder,
)
from support.folder_sync import refuse_folder_sync
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
    assert not root.exists()
    # Folders that were there stay.
    (root / "tiny").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        publish(root, manifest, graphs, before_rename=refuse)
    assert list((root / "tiny").iterdir()) == []


@pytest.mark.parametrize("place", ["mkdir", "write", "rename"])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, version: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a temporary folder nor an empty folder of the model stays. The disk's error is raised."""
    manifest = read_manifest(version)
    graphs = {"encoder.onnx": encoder(SHAPE, LATENT_DIM), "decoder.onnx": decoder(SHAPE, LATENT_DIM)}
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    mkdir = Path.mkdir

    def fail(*_: object) -> None:
        raise full

    def make_some(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name.startswith(".tmp-"):
            mkdir(path.parent, parents=True)
            raise full
        mkdir(path, *arguments, **options)

    if place == "mkdir":
        monkeypatch.setattr(Path, "mkdir", make_some)
    elif place == "write":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "rename", fail)
    root = tmp_path / "new" / "models"
    with pytest.raises(OSError, match="No space left on device"):
        publish(root, manifest, graphs)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.ENOSYS])
def test_a_disk_that_does_not_flush_folders(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some shares refuse to flush a folder: the version is published all the same."""
    refuse_folder_sync(monkeypatch, number)
    read_bundle(publish_tiny(tmp_path))
    sync_folder(tmp_path)


def test_a_disk_that_fails_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input or output error of a folder is an error."""

    def fail(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_graphs_that_the_manifest_does_not_list_are_not_published(tmp_path: Path, version: Path) -> None:
    """Publishing checks that names and checksums of manifest and files agree."""
    graphs = {"encoder.onnx": encoder(SHAPE, LATENT_DIM, seed=9), "decoder.onnx": decoder(SHAPE, LATENT_DIM)}
    with pytest.raises(BundleError, match="are not those of the manifest"):
        publish(tmp_path / "other", read_manifest(version), graphs)
    assert not (tmp_path / "other").exists()
