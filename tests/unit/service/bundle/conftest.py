from pathlib import Path

import pytest

from support.tiny_bundle import publish_tiny


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The folder of a published version of the model `tiny`."""
    return publish_tiny(tmp_path / "models")
