import logging
from pathlib import Path

import pytest

from convvae_service.bundle import listing
from convvae_service.bundle.listing import folder_names, published_versions, warn_once


def test_long_lists_end_and_keep_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first names and the highest versions are returned, and those that the caller knows; said once."""
    monkeypatch.setattr(listing, "_warnings", set())
    monkeypatch.setattr(listing, "MAX_FOLDERS", 3)
    monkeypatch.setattr(listing, "MAX_VERSIONS", 2)
    (tmp_path / "file").write_text("")
    for number in range(1, 8):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "manifest.json").write_text("{}")
    for _ in range(3):
        assert folder_names(tmp_path) == ["1", "2", "3"]
        assert folder_names(tmp_path, known=("6",)) == ["1", "2", "6"]
        assert published_versions(tmp_path) == [6, 7]
        assert published_versions(tmp_path, known=(1, 99)) == [1, 6, 7]
    assert len(caplog.records) == 2


def test_warnings_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Each is logged once, with printable facts; after 100 of them a last line says so."""
    monkeypatch.setattr(listing, "_warnings", set())
    with caplog.at_level(logging.WARNING):
        for number in range(300):
            warn_once("an odd folder", str(number), folder="caf\udce9\n")
            warn_once("an odd folder", str(number), folder="caf\udce9\n")
    assert len(caplog.records) == 101
    assert vars(caplog.records[0])["facts"] == {"folder": "caf\\xe9\\n"}
    assert "further ones are skipped without a line" in caplog.records[-1].message
