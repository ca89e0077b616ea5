"""The clients of docs/other-languages.md run as they stand there. `make tools` brings what they need."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.serving import ServerProcess

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools"
PAGE = (ROOT / "docs" / "other-languages.md").read_text()
PROTO = ROOT / "protos" / "convvae" / "v1" / "vae.proto"
# The first two lines that each client prints.
EXPECTED = [r"100 vectors of \d+, the first value is -?[\d.e-]+", r"16 images of seed 7: \d+ bytes"]


def block(language: str) -> str:
    """Return the page's only block in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def output(words: list[str | Path], folder: Path, **environ: str) -> list[str]:
    """Return the lines that a program prints in a folder."""
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_client_of_node_runs(tiny_server: ServerProcess, tmp_path: Path) -> None:
    """It encodes, samples, and shows the code and the message of an error."""
    node = shutil.which("node")
    if node is None or not (TOOLS / "grpc-js").exists():
        pytest.skip("gRPC for Node.js is not installed: make tools")
    (tmp_path / "node_modules").symlink_to(TOOLS / "grpc-js" / "node_modules")
    shutil.copy(PROTO, tmp_path)
    (tmp_path / "client.mjs").write_text(block("js"))
    first, second, third = output([node, "client.mjs", tiny_server.target], tmp_path)
    assert re.fullmatch(EXPECTED[0], first)
    assert re.fullmatch(EXPECTED[1], second)
    assert third == "INVALID_ARGUMENT files[0]: not a JPEG, PNG or WebP image"


@pytest.mark.slow
def test_the_client_of_go_runs(tiny_server: ServerProcess, tmp_path: Path) -> None:
    """The page's commands make its stubs; it encodes, samples, and reads the details of an error."""
    go = shutil.which("go")
    if go is None or not (TOOLS / "grpc-go" / "go.sum").exists():
        pytest.skip("gRPC for Go is not installed: make tools")
    (command,) = re.findall(r"^    protoc (-I vae .*\\\n.*)$", PAGE, re.MULTILINE)
    (tmp_path / "vae").mkdir()
    shutil.copy(PROTO, tmp_path / "vae")
    path = f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}"
    words = command.replace("\\\n", " ").split()
    assert output([sys.executable, "-m", "grpc_tools.protoc", *words], tmp_path, PATH=path) == []
    for name in ("go.mod", "go.sum"):
        shutil.copy(TOOLS / "grpc-go" / name, tmp_path)
    (tmp_path / "main.go").write_text(block("go"))
    offline = {"GOPROXY": "off", "GOFLAGS": "-mod=mod"}
    first, second, reason, violation = output([go, "run", ".", tiny_server.target], tmp_path, **offline)
    assert re.fullmatch(EXPECTED[0], first)
    assert re.fullmatch(EXPECTED[1], second)
    assert (reason, violation) == ("INVALID_INPUT", "files[0] not a JPEG, PNG or WebP image")
