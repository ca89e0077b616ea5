"""ONNX Runtime tells its makers nothing, unless the user says otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.tiny_bundle import LATENT_DIM, SHAPE, encoder

PROGRAMS = {
    "trainer": "from convvae_trainer.exports.onnx_runtime import open_session\n"
    "open_session(data, name='encoder')",
    "service": "from convvae_service.engine.runtime import import_runtime\n"
    "import_runtime().InferenceSession(data, providers=['CPUExecutionProvider'])",
}


def files_written(program: str, home: Path, **environ: str) -> list[Path]:
    graph = home / "graph.onnx"
    graph.write_bytes(encoder(SHAPE, LATENT_DIM))
    code = f"data = open({str(graph)!r}, 'rb').read()\n{program}"
    given = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    subprocess.run([sys.executable, "-c", code], env={**given, "HOME": str(home), **environ}, check=True)
    graph.unlink()
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("package", PROGRAMS)
def test_no_identity_is_kept(package: str, tmp_path: Path) -> None:
    """Neither package lets ONNX Runtime write its identity of the machine and its events."""
    assert files_written(PROGRAMS[package], tmp_path) == []
