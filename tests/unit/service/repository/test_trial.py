import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convvae_service.bundle import read_bundle
from convvae_service.repository.trial import LoadLimits, Trial, TrialResult
from support import hostile_version
from support.tiny_bundle import publish_tiny
from support.version_folder import version_at

LIMITS = LoadLimits(timeout_s=20, max_bytes=512 << 20)


def result_of(folder: Path, limits: LoadLimits = LIMITS) -> TrialResult:
    return Trial(version_at(folder), limits, precision=None, every=False).run()


def test_a_sound_version_passes(tmp_path: Path) -> None:
    """The result names the manifest that was tried."""
    folder = publish_tiny(tmp_path)
    result = result_of(folder)
    assert result == TrialResult(
        summary="vae, bernoulli, 8x6x1, latent 4, fp32", sha256=read_bundle(folder).sha256
    )


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (hostile_version.take_memory, "needs more than 512 MiB to load and run: make its graphs smaller, or"),
        (
            hostile_version.return_no_numbers,
            "its graphs distort rows of zeros to numbers that are not finite",
        ),
        (lambda folder: (folder / "encoder.onnx").unlink(), "encoder.onnx is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest schema_version is None"),
    ],
)
def test_a_bad_version_fails_with_one_line(tmp_path: Path, spoil: Callable[[Path], Any], error: str) -> None:
    """Whatever it does, within the limits."""
    folder = publish_tiny(tmp_path)
    spoil(folder)
    result = result_of(folder)
    assert result.error.startswith(error)
    assert not result.again


def test_a_version_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """In the middle of ONNX Runtime's work."""
    folder = hostile_version.compute_for_hours(publish_tiny(tmp_path))
    started_s = time.monotonic()
    result = result_of(folder, LoadLimits(timeout_s=1.5, max_bytes=512 << 20))
    assert result.error.startswith("did not load and run within 1.5 s: make its graphs smaller, or raise")
    assert time.monotonic() - started_s < 10


def test_a_trial_can_be_stopped(tmp_path: Path) -> None:
    """While it runs, and before it begins."""
    folder = hostile_version.compute_for_hours(publish_tiny(tmp_path))
    trial = Trial(version_at(folder), LIMITS, precision=None, every=False)
    timer = threading.Timer(0.5, trial.stop)
    timer.start()
    assert trial.run() == TrialResult(error="given up", again=True)
    stopped = Trial(version_at(folder), LIMITS, precision=None, every=False)
    stopped.stop()
    assert stopped.run() == TrialResult(error="given up", again=True)


def test_a_crash_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that ends the process is named."""
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda *_, **options: popen(["sh", "-c", "kill -SEGV $$"], stdout=options["stdout"]),
    )
    assert result_of(publish_tiny(tmp_path)).error == f"crashes ONNX Runtime ({signal.SIGSEGV.name})"


def test_a_process_that_cannot_start_says_nothing_of_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is tried again."""

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, os.strerror(11))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    result = result_of(publish_tiny(tmp_path))
    assert result.again
    assert result.error.startswith("cannot be tried: no process can be started (")
