"""A repository with a bundle that a newer version of the project has published."""

import json
from pathlib import Path

from convvae import Client
from support.serving import serving
from support.tiny_bundle import publish_tiny


def test_the_last_readable_version_serves(tmp_path: Path) -> None:
    """A version of a newer schema is listed with what to do, and the one before it answers."""
    publish_tiny(tmp_path)
    manifest = publish_tiny(tmp_path) / "manifest.json"
    newer = {**json.loads(manifest.read_text()), "schema_version": 99, "more": "than this version knows"}
    manifest.write_text(json.dumps(newer))
    with serving(tmp_path) as server, Client(server.target) as vae:
        (model,) = vae.models()
        first, second = model.versions
        assert (first.state, first.is_default, second.state) == ("serving", True, "failed")
        assert "schema version 99" in second.error
        assert "upgrade convvae" in second.error
        assert vae.sample(1, seed=0).version == 1
