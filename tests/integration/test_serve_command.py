"""The command `convvae-serve` as an operator types it."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from support.tiny_bundle import publish_tiny


def serve(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convvae_service", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_check_names_every_version(tmp_path: Path) -> None:
    """A sound repository is one line per version and exit code 0; a fault is named and the code is 1."""
    publish_tiny(tmp_path)
    folder = publish_tiny(tmp_path)
    done = serve("check", str(tmp_path))
    assert done.returncode == 0
    line = "ok  vae, bernoulli, 8x6x1, latent 4, fp32"
    assert done.stdout.splitlines() == [f"tiny@1  {line}", f"tiny@2  {line}"]
    (folder / "encoder.onnx").write_bytes(b"short")
    done = serve("check", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].startswith("tiny@2  UNSOUND  encoder.onnx has 5 bytes, the manifest")


def test_check_of_nothing_fails(tmp_path: Path) -> None:
    """A folder without models, or none at all, is wrong use: exit code 2."""
    done = serve("check", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2,
        f"error: no model version is published under {str(tmp_path)!r}: export one there first\n",
    )
    done = serve("check", str(tmp_path / "absent"))
    assert (done.returncode, "absent' does not exist" in done.stderr) == (2, True)


def test_help_and_version() -> None:
    """Help names the commands and every option; the version is the package's."""
    assert "Without a command, it is run." in serve("--help").stdout
    assert serve("--version").stdout == f"convvae-serve {version('convvae')}\n"
    assert "--max-rows-per-call" in serve("run", "--help").stdout
    assert serve("--models", "models", "-h").stdout == serve("run", "--help").stdout
    assert "Verify every version" in serve("check", "--help").stdout


def test_wrong_use_is_explained() -> None:
    """An unknown command, a missing root and a missing argument end with exit code 2 and a hint."""
    for words, message in (
        (("start",), "error: convvae-serve has no command 'start'"),
        ((), "error: --models is required"),
        (("check",), "error: convvae-serve check needs ROOT"),
    ):
        done = serve(*words)
        assert done.returncode == 2
        assert done.stderr.startswith(message)
        assert "Traceback" not in done.stderr


def test_a_missing_extra_is_named() -> None:
    """Without the service's extra the command says which one to install."""
    code = (
        "import sys; sys.modules['pydantic_settings'] = None\n"
        "from convvae_service.__main__ import main; main(['run'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "pip install 'convvae[service,gpu]' or 'convvae[service,cpu]'" in done.stderr
