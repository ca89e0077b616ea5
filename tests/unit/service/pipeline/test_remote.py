from types import SimpleNamespace
from typing import Any, Self

import pytest

from convvae_service.pipeline import remote
from convvae_service.pipeline.errors import BadModel
from support.tiny_bundle import publish_tiny


class Connection:
    """A client of a service with `manifest_json`, which records the open connections."""

    open_ones: list["Connection"]
    manifest_json: bytes

    def __init__(self, *_: Any, **__: Any) -> None:
        self.open_ones.append(self)

    def model(self, **_: Any) -> Any:
        limits = SimpleNamespace(max_rows_per_call=4)
        return SimpleNamespace(
            model="tiny", version=1, precision="fp16", manifest_json=self.manifest_json, limits=limits
        )

    def close(self) -> None:
        self.open_ones.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.mark.parametrize("damaged", [False, True])
def test_refused_model_leaves_no_connection(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """A manifest that cannot be read, or one without the precision, closes what was opened."""
    monkeypatch.setattr(remote, "Client", Connection)
    Connection.open_ones = []
    manifest = publish_tiny(tmp_path) / "manifest.json"
    Connection.manifest_json = b"{}" if damaged else manifest.read_bytes()
    with pytest.raises(BadModel):
        remote.RemoteEncoder("localhost:1")
    assert Connection.open_ones == []
