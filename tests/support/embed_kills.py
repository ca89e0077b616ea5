"""Runs of `convvae-embed` that are killed, at moments that are proven to be inside the run, and resumed."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WAIT_S = 120.0


def start(words: Sequence[Any]) -> "subprocess.Popen[str]":
    """Start `convvae-embed run` with these words."""
    command = [sys.executable, "-m", "convvae_service.pipeline", "run", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(words: Sequence[Any]) -> dict[str, Any]:
    """Run to the end, and return the summary."""
    process = start([*words, "--json"])
    try:
        out, errors = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return dict(json.loads(out))


def parts_on_disk(result: Path) -> int:
    """Return the number of parts that the journal names."""
    journal = result / "_journal.jsonl"
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def kill_after(words: Sequence[Any], result: Path, *, new_parts: int, delay_s: float) -> int:
    """Start a run, kill it `delay_s` after it has written so many more parts, and return the parts then.

    The run was killed inside its work: it had begun, it had not ended, and the result is not complete.
    """
    before = parts_on_disk(result)
    process = start(words)
    try:
        deadline_s = time.monotonic() + WAIT_S
        while parts_on_disk(result) < before + new_parts:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        time.sleep(delay_s)
        process.kill()
        assert process.wait(WAIT_S) == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()
    assert not (result / "_result.json").exists(), "the run had ended before it was killed"
    return parts_on_disk(result)
