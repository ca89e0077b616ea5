"""Odd folders in a repository: they are skipped, said once, and hide nothing."""

import os
from pathlib import Path

import pytest

from convvae_service.bundle import list_models
from convvae_service.repository.catalog import Repository
from convvae_service.repository.check import check_repository
from convvae_service.repository.place import find_place
from convvae_service.repository.stamp import stamp_of
from convvae_service.repository.watch import look
from support.tiny_bundle import publish_tiny

ODD_NAMES = (b"caf\xe9", b"evil\n\x1b[31m", b"liveness", b"n" * 200, b"a b")


def add_odd_folders(root: Path) -> None:
    for name in ODD_NAMES:
        folder = root / os.fsdecode(name) / "1"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "is no model" in record.message]


def test_a_folder_that_cannot_be_a_model_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Names that are not UTF-8, have control characters or are reserved are logged once each."""
    publish_tiny(tmp_path)
    add_odd_folders(tmp_path)
    repository = Repository(tmp_path, pinned={})
    assert list(repository.models) == ["tiny"]
    assert len(warnings_in(caplog)) == len(ODD_NAMES)
    found, _ = look(repository.place, repository.tried())
    assert [name for name in found if repository.admits(name)] == ["tiny"]
    assert len(warnings_in(caplog)) == len(ODD_NAMES)


def test_a_check_names_them_on_one_line(tmp_path: Path) -> None:
    """They are unsound; their names are escaped."""
    add_odd_folders(tmp_path)
    findings = list(check_repository(tmp_path))
    assert len(findings) == len(ODD_NAMES) == len(list_models(tmp_path))
    for finding in findings:
        assert finding.error
        assert f"{finding.model}{finding.error}".isprintable()


def test_a_link_to_nothing_does_not_hide_changes(tmp_path: Path) -> None:
    """The stamp of a version with a broken link changes with its other files, and with the link's target."""
    folder = publish_tiny(tmp_path)
    (folder / "notes").symlink_to("absent")
    stamps = [stamp_of(folder)]
    (folder / "model_card.md").write_text("new")
    stamps.append(stamp_of(folder))
    (folder / "absent").write_text("here now")
    stamps.append(stamp_of(folder))
    assert None not in stamps
    assert len(set(stamps)) == 3


def test_a_link_to_itself_does_not_stop_the_listing(tmp_path: Path) -> None:
    """Other models are followed on."""
    publish_tiny(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    found, _ = look(find_place(tmp_path), {})
    assert list(found) == ["tiny"]
