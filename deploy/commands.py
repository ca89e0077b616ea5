"""Commands of a release, without packages and settings of the environment that starts it."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["ReleaseError", "clean_environ", "run"]


class ReleaseError(Exception):
    """A step of the release failed; the message says which and why."""


def clean_environ() -> dict[str, str]:
    """Return the variables of this process without those that bring other packages or settings."""
    hidden = ("PYTHON", "CONVVAE_", "OTEL_", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


def run(
    command: Sequence[str | Path], *, cwd: Path, timeout_s: float, environ: Mapping[str, str] | None = None
) -> str:
    """Run a command, by default with `clean_environ`, and return its output.

    Raises:
        ReleaseError: It failed, or took longer than `timeout_s` seconds.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, env=environ or clean_environ(), capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"{' '.join(words)} took longer than {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise ReleaseError(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
