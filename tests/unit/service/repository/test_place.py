"""`--models` may be a repository, the folder of one model, or one bundle."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from convvae_service.bundle import BundleError
from convvae_service.errors import StartupError
from convvae_service.repository.catalog import Repository
from convvae_service.repository.check import check_repository
from convvae_service.repository.place import Place, find_place
from convvae_service.repository.version_folder import VersionFolder
from support.tiny_bundle import publish_tiny


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two versions of `tiny`."""
    publish_tiny(tmp_path / "root")
    publish_tiny(tmp_path / "root", seed=1)
    return tmp_path / "root"


def test_a_repository_is_what_has_models(root: Path) -> None:
    """Each version is served under its folder's names."""
    place = find_place(root)
    assert place == Place(root=root)
    assert place.published() == {"tiny": [1, 2]}
    assert place.folder("tiny", 2) == VersionFolder(
        path=root / "tiny" / "2", model="tiny", version=2, name="tiny"
    )


def test_the_folder_of_a_model_has_its_versions(root: Path) -> None:
    """The name is that of the manifests, whatever the folder is called."""
    (root / "tiny").rename(root / "mount")
    place = find_place(root / "mount")
    assert place == Place(root=root / "mount", name="tiny", model="tiny")
    assert place.published() == {"tiny": [1, 2]}
    assert place.folder("tiny", 2).path == root / "mount" / "2"
    assert place.folder("tiny", 2).read().version == 2


def test_a_bundle_is_one_version(root: Path) -> None:
    """Its number is that of the folder, or 1."""
    assert find_place(root / "tiny" / "2") == Place(
        root=root / "tiny" / "2", name="tiny", model="tiny", version=2
    )
    (root / "tiny" / "2").rename(root / "mount")
    place = find_place(root / "mount")
    assert place == Place(root=root / "mount", name="tiny", model="tiny", version=1)
    assert place.published() == {"tiny": [1]}
    bundle = place.folder("tiny", 1).read()
    assert (bundle.version, bundle.manifest.model) == (1, "tiny")


def test_a_bundle_in_the_working_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--models .` is a place like any other."""
    monkeypatch.chdir(root / "tiny" / "2")
    assert find_place(Path()).version == 2
    monkeypatch.chdir(root / "tiny")
    assert find_place(Path()).published() == {"tiny": [1, 2]}
    monkeypatch.chdir(root)
    assert find_place(Path()).published() == {"tiny": [1, 2]}


@pytest.mark.parametrize("where", [".", "tiny", "tiny/1"])
def test_one_model_gets_a_name(root: Path, where: str) -> None:
    """It is served under the name and still found under its own; its manifest is still checked."""
    place = find_place(root / where, "vae")
    assert list(place.published()) == ["vae"]
    assert place.aliases == {"tiny": "vae"}
    assert place.folder("vae", 1).read().manifest.model == "tiny"
    repository = Repository(root / where, pinned={}, model_name="vae")
    assert list(repository.models) == ["vae"]
    assert find_place(root / where, "tiny").aliases == {}


def test_several_models_do_not_share_a_name(root: Path) -> None:
    """The message lists them."""
    publish_tiny(root, "other")
    with pytest.raises(StartupError) as caught:
        Repository(root, pinned={}, model_name="vae")
    assert str(caught.value) == (
        f"--model-name is the name of one model, and {str(root)!r} has 2: other, tiny:"
        " give the folder of one of them to --models"
    )


@pytest.mark.parametrize("may_be_empty", [False, True])
def test_a_name_needs_a_model(tmp_path: Path, may_be_empty: bool) -> None:
    """With an empty repository, nobody knows yet which model it would be."""
    with pytest.raises(StartupError) as caught:
        Repository(tmp_path, pinned={}, model_name="vae", may_be_empty=may_be_empty)
    message = f"no model version is published under {str(tmp_path)!r}: --model-name needs one at the start"
    assert str(caught.value) == message
    with pytest.raises(BundleError, match="does not exist"):
        find_place(tmp_path / "absent", "vae")


def test_a_repository_stays_one_whatever_lies_in_it(root: Path) -> None:
    """A manifest at its root, or a folder that looks like a version, hides no model."""
    shutil.copy(root / "tiny" / "1" / "manifest.json", root / "manifest.json")
    shutil.copytree(root / "tiny" / "1", root / "7")
    assert find_place(root) == Place(root=root)
    assert find_place(root).published() == {"tiny": [1, 2]}


def test_a_damaged_manifest_is_a_version_that_fails(root: Path) -> None:
    """The place is found all the same, so that the start, a check and a watch report the fault."""
    folder = root / "tiny" / "2"
    (folder / "manifest.json").write_text("{")
    assert find_place(root / "tiny").model == "tiny"
    place = find_place(folder, "vae")
    assert place == Place(root=folder, name="vae", version=2)
    (finding,) = check_repository(folder)
    assert (finding.model, finding.version) == ("model", 2)
    assert finding.error.startswith("manifest is not valid JSON")


def test_a_folder_that_cannot_be_listed_now_is_still_a_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is served under its new name when the disk is back, whatever its manifest says."""

    def fail(*_: object, **__: object) -> list[int]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("convvae_service.repository.place.published_versions", fail)
    assert find_place(root, "vae") == Place(root=root / "tiny", name="vae")


def test_a_version_of_another_model_is_refused(root: Path) -> None:
    """The newest version that can be read says whose folder it is."""
    other = publish_tiny(root, "other")
    other.rename(root / "tiny" / "3")
    findings = {finding.version: finding.error for finding in check_repository(root / "tiny")}
    assert find_place(root / "tiny").name == "other"
    assert findings[3] == ""
    assert findings[1] == "manifest is of model 'tiny', its folder of 'other'"
