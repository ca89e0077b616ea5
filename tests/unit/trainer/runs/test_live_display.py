"""The lines that a run shows, and its record of its origin."""

import io
import re
import socket
from pathlib import Path

import pytest
from rich.console import Console

from convvae_trainer.console import Countdown
from convvae_trainer.runs import provenance
from convvae_trainer.runs.live_display import LiveDisplay
from convvae_trainer.runs.provenance import code_commit, hardware, library_versions

MEANS = {"elbo": -90.75, "distortion": 70.5, "rate": 20.25, "active_units": 17, "skipped_steps": 2}


def shown(console: Console) -> str:
    with LiveDisplay(console, total_epochs=30) as progress:
        progress.show_epoch(epoch=3, fraction=0.1, means=MEANS, images_per_s=1234.5, left_s=3725.0)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_names_everything(terminal: bool) -> None:
    """Epoch, ELBO, its terms, speed and the time left are shown, on a terminal and in a log."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
    text = (
        "epoch 3/30  2 steps skipped  ELBO -90.75  distortion 70.50  rate 20.25  17 active units"
        "  1,234 images/s  1:02:05 left"
    )
    assert text in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(console))


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("columns", "figures"),
    [(80, "epoch 3/30  2 steps skipped  "), (60, "epoch 3/30  "), (40, "")],
)
def test_a_narrow_screen_keeps_speed_time_and_bar(terminal: bool, columns: int, figures: str) -> None:
    """A line fits the screen: figures are left out from the last on, and a terminal has the bar."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=columns, legacy_windows=False)
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(console)))
    assert max(map(len, lines)) <= columns
    (line,) = {line.rstrip() for line in lines if "left" in line}
    assert line.startswith(figures if terminal else "epoch 3/30  " if columns < 80 else figures + "ELBO")
    assert "1,234 images/s  1:02:05 left" in line
    assert ("━" in line) == terminal


def test_a_log_gets_a_line_now_and_then() -> None:
    """Off a terminal nothing is due at once: a log is not flooded."""
    console = Console(file=io.StringIO(), force_terminal=False)
    with LiveDisplay(console, total_epochs=None) as progress:
        assert not progress.is_due
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_countdown_says_the_time_left(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """It follows from the share that is done; nothing is shown before it is time to."""
    now = 100.0
    monkeypatch.setattr("convvae_trainer.console.time.monotonic", lambda: now)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
    with Countdown(console, "log-likelihood") as countdown:
        countdown.show_share(0.001)
        now += 30.0
        countdown.show_share(0.25)
        now += 0.1
        countdown.show_share(0.26)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert "log-likelihood: 25.0%, 1:30 left" in text
    assert "0.1%" not in text
    assert "26.0%" not in text


def test_origin_names_code_and_libraries_but_no_host() -> None:
    """Commit, versions and processor are recorded; the machine's name is not."""
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", code_commit())
    assert {"python", "torch", "numpy"} <= set(library_versions())
    assert "cores" in hardware()
    assert socket.gethostname() not in hardware()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx avx2 fma", ", AVX2"),
        ("avx2 avx512f avx512_bf16", ", AVX-512, AVX-512 bf16"),
        ("avx2 avx512f avx512_bf16 amx_bf16", ", AVX-512, AMX bf16"),
        ("sse2", " cores"),
    ],
)
def test_hardware_says_what_makes_processors_of_one_name_differ(
    flags: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines may both be an `AMD EPYC`, and one of them train three times as fast as the other."""
    (tmp_path / "cpuinfo").write_text(f"model name\t: AMD EPYC\nflags\t\t: {flags}\n\n")
    monkeypatch.setattr(provenance, "CPU_INFO", tmp_path / "cpuinfo")
    assert hardware().startswith("AMD EPYC, ")
    assert hardware().endswith(expected)
