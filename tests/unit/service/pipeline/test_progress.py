"""The progress bar: what it says, on a terminal of 80 columns."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from convvae_service.pipeline import progress as progress_module
from convvae_service.pipeline.progress import progress_bar


def test_bar_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images, images per second, remaining time, failures and resumed work are whole at 8-digit counts."""
    now_s = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: next(now_s)))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    with progress_bar(console) as progress:
        progress.resume(10_000_000)
        for _ in range(3):
            progress.advance(1_000_000, 345, expected=70_000_000)
        progress._bar.refresh()  # type: ignore[attr-defined]
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]", stream.getvalue())]
    assert max(map(len, lines)) <= 80
    last = [line for line in lines if line.strip()][-1]
    for text in ("13,001,035/70,000,000", " img/s ", "1,035 failed, 10.0M resumed"):
        assert text in last, last


def test_nothing_is_shown_without_a_terminal() -> None:
    """A file or pipe gets no bar."""
    stream = io.StringIO()
    with progress_bar(Console(file=stream)) as progress:
        progress.resume(0)
        progress.advance(1, 0, expected=None)
    assert stream.getvalue() == ""
