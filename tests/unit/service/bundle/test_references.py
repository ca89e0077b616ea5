"""References to published versions."""

from pathlib import Path

import pytest

from convvae_service.bundle import NoSuchVersion, version_folder
from support.tiny_bundle import publish_tiny


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one with two versions."""
    root = tmp_path_factory.mktemp("models")
    for name in ("tiny", "tiny", "other"):
        publish_tiny(root, name)
    return root


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("tiny", "tiny/2"),
        ("tiny/", "tiny/2"),
        ("tiny@1", "tiny/1"),
        ("tiny/1", "tiny/1"),
        ("other", "other/1"),
    ],
)
def test_a_version_is_found(
    root: Path, reference: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model, a model with a version and the folder of a version are found, also by relative paths."""
    assert version_folder(f"{root}/{reference}") == version_folder(root / reference) == root / version
    monkeypatch.chdir(root)
    assert version_folder(reference) == root / version


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("tiny@3", r"model '.*tiny' has no version '3': it has 1, 2"),
        ("tiny/3", r"model '.*tiny' has no version '3': it has 1, 2"),
        ("tiny@x", r"has no version 'x': it has 1, 2"),
        ("tiny@", r"has no version '': it has 1, 2"),
        ("tyni", r"no model is published at '.*tyni': there is .*other, .*tiny$"),
        ("tyni@1", r"no model is published at '.*tyni@1': there is"),
        (".", r"no model is published at '.*': there is .*other, .*tiny$"),
        ("none/tiny", r"no model is published at .*: give ROOT/MODEL, ROOT/MODEL@VERSION"),
        ("@1", r"no model is published at '.*@1'"),
    ],
)
def test_a_version_that_is_absent_is_refused(root: Path, reference: str, message: str) -> None:
    """The message names what there is."""
    with pytest.raises(NoSuchVersion, match=message):
        version_folder(f"{root}/{reference}")
