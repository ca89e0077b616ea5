"""The fingerprints of the training images in a bundle: complete, or refused in one line."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae_service.bundle import (
    TRAINED_ON_FILE,
    BundleError,
    Manifest,
    encode_trained_on,
    publish,
    read_bundle,
    read_manifest,
    read_trained_on,
)
from convvae_service.repository.check import check_repository
from support.tiny_bundle import publish_tiny

HASHES = np.array([2**64 - 1, 7, 300, 7, 2**40], np.uint64)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The folder of a version with fingerprints."""
    return publish_tiny(tmp_path / "models", trained_on=HASHES)


def rewrite(folder: Path, data: bytes, **changes: Any) -> None:
    """Replace the file, and keys of its entry in the manifest."""
    (folder / TRAINED_ON_FILE).write_bytes(data)
    content = json.loads((folder / "manifest.json").read_text())
    content["trained_on"].update(changes)
    (folder / "manifest.json").write_text(json.dumps(content))


def words(*numbers: int) -> bytes:
    """Return numbers as the file has them."""
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def test_fingerprints_are_published_sorted_and_read_back(version: Path) -> None:
    """The file has each one once, in 8 little-endian bytes; the manifest has its name, hash and count."""
    data = (version / TRAINED_ON_FILE).read_bytes()
    assert data == words(7, 300, 2**40, 2**64 - 1)
    entry = json.loads((version / "manifest.json").read_text())["trained_on"]
    assert entry == {"file": "trained_on.bin", "sha256": sha256(data).hexdigest(), "count": 4}
    found = read_trained_on(version, read_manifest(version))
    assert found is not None
    assert found.dtype == np.uint64
    assert found.tolist() == [7, 300, 2**40, 2**64 - 1]
    assert [finding.error for finding in check_repository(version.parents[1])] == [""]


def test_a_version_without_fingerprints_says_so(tmp_path: Path) -> None:
    """The manifest has no entry, and there is no file. Manifests of earlier schemas lack the key."""
    folder = publish_tiny(tmp_path)
    manifest = read_manifest(folder)
    assert (manifest.trained_on, read_trained_on(folder, manifest)) == (None, None)
    assert not (folder / TRAINED_ON_FILE).exists()
    older = json.loads(manifest.to_json()) | {"schema_version": 2}
    del older["trained_on"]
    assert Manifest.from_json(json.dumps(older)).trained_on is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / TRAINED_ON_FILE).unlink(), "trained_on.bin is missing"),
        (
            lambda folder: rewrite(folder, words(7, 300)),
            "trained_on.bin has 16 bytes, the manifest states 32",
        ),
        (lambda folder: rewrite(folder, words(7, 300, 2**40, 9)), "trained_on.bin is damaged: its sha256 is"),
        (
            lambda folder: rewrite(
                folder, words(7, 300, 300, 9), sha256=sha256(words(7, 300, 300, 9)).hexdigest()
            ),
            "trained_on.bin is damaged: its fingerprints are not in ascending order",
        ),
        (
            lambda folder: rewrite(folder, words(7, 300, 2**40, 2**64 - 1), count=3),
            "trained_on.bin has 32 bytes, the manifest states 24",
        ),
        (lambda folder: rewrite(folder, b"", count=0), "trained_on.count is 0: it must be 1 to"),
        (lambda folder: rewrite(folder, b"", count="4"), "manifest.trained_on.count is '4', not int"),
        (lambda folder: rewrite(folder, b"", sha256="x"), "sha256 of trained_on.bin is not 64 lower-case"),
        (lambda folder: rewrite(folder, b"", file="../x"), "trained_on.file '../x' is not a plain file name"),
        (lambda folder: rewrite(folder, b"", colour=1), "manifest.trained_on has the unknown key 'colour'"),
    ],
)
def test_damage_is_found_by_the_reader_and_by_the_check(version: Path, damage: Any, message: str) -> None:
    """Length, checksum, order, number and entry are verified; the line says what is wrong."""
    damage(version)
    with pytest.raises(BundleError) as caught:
        read_trained_on(version, read_manifest(version))
    assert message in str(caught.value)
    (finding,) = check_repository(version.parents[1])
    assert message in finding.error
    assert "\n" not in finding.error


def test_an_entry_of_another_kind_is_refused(version: Path) -> None:
    """A list in place of the object is named."""
    content = json.loads((version / "manifest.json").read_text()) | {"trained_on": [1]}
    with pytest.raises(BundleError, match=r"manifest\.trained_on is not a JSON object"):
        Manifest.from_json(json.dumps(content))


def test_a_server_does_not_need_the_file(version: Path) -> None:
    """A version whose file is damaged or removed still serves: only the trainer reads it."""
    rewrite(version, b"damaged")
    assert read_bundle(version).version == 1
    (version / TRAINED_ON_FILE).unlink()
    assert read_bundle(version).version == 1


def test_a_link_that_leaves_the_folder_is_refused(version: Path, tmp_path: Path) -> None:
    """The rule is that of graphs."""
    shutil.move(version / TRAINED_ON_FILE, tmp_path / "elsewhere")
    (version / TRAINED_ON_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"trained_on\.bin is a link that leaves its version's folder"):
        read_trained_on(version, read_manifest(version))


def test_fingerprints_that_the_manifest_does_not_list_are_not_published(
    version: Path, tmp_path: Path
) -> None:
    """The publisher takes all listed files and no others."""
    manifest = read_manifest(version)
    files = {graph.file: (version / graph.file).read_bytes() for graph in manifest.graphs}
    for wrong in (files, files | {TRAINED_ON_FILE: encode_trained_on(HASHES[:2])[1]}):
        with pytest.raises(BundleError, match="are not those of the manifest"):
            publish(tmp_path / "other", manifest, wrong)
    assert not (tmp_path / "other").exists()
