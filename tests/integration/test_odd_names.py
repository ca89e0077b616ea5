"""Names that are not UTF-8, or have control characters: in the repository, in flags and in files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convvae.v1 import vae_pb2 as pb
from support.serving import serving
from support.tiny_bundle import publish_tiny
from support.wire import TIMEOUT_S, stub_of

ODD = os.fsdecode(b"caf\xe9\n\x1b[31m")


def test_odd_folders_in_a_repository_change_nothing(tmp_path: Path) -> None:
    """Listing, calls and metrics work, from a root with such a name too; the log names each folder once."""
    root = tmp_path / ODD
    publish_tiny(root)
    for name in (ODD, "liveness"):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "manifest.json").write_text("{}")
    config = tmp_path / f"{ODD}.toml"
    config.write_text("max_batch_rows = 8\n")
    flags = ("--watch", "--watch-interval-s", "0.1", "--config", str(config))
    with serving(root, *flags) as server, stub_of(server.target) as stub:
        assert stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S).images.count == 1
        (root / f"{ODD}2" / "1").mkdir(parents=True)
        (root / f"{ODD}2" / "1" / "manifest.json").write_text("{}")
        publish_tiny(root)
        server.wait_for("model version loaded", version=2)
        models = stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S).models
        assert [model.name for model in models] == ["tiny"]
        assert "convvae_calls_total" in server.metrics_page()
        assert len(server.messages("a folder of the repository is no model and is skipped")) == 3


@pytest.mark.parametrize(
    "words",
    [
        ("check", ODD),
        ("run", "--models", ODD),
        ("run", "--models", "ROOT", "--config", ODD),
        ("run", "--models", "ROOT", "--token-file", ODD),
        ("run", "--models", "ROOT", "--tls-certificate", ODD, "--tls-key", ODD),
        ("run", "--models", "ROOT", "--serve", f"{ODD}=1"),
        ("run", "--models", "ROOT", "--precision", f"{ODD}=fp32"),
        ("run", "--models", "ROOT", "--address", ODD),
        ("run", "--models", "ROOT", f"--{ODD}"),
        (ODD,),
    ],
)
def test_an_odd_name_in_an_error_is_one_line(tiny_root: Path, words: tuple[str, ...]) -> None:
    """Nothing raw reaches the terminal, and the exit code is that of a start that failed."""
    command = [sys.executable, "-m", "convvae_service"]
    command += [str(tiny_root) if word == "ROOT" else word for word in words]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    text = done.stderr.decode()
    assert done.returncode == 2
    assert "Traceback" not in text
    assert "\x1b" not in text
    assert text.startswith("error: ")
    if words[0] != ODD:
        assert text.count("\n") == 1
