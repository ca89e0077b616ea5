"""Commands run by a test: in this process, or as two processes that train together."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convvae_trainer.__main__ import main
from convvae_trainer.commands.evaluate import run_evaluate
from convvae_trainer.commands.stored_run import DataLocation
from convvae_trainer.evaluation.metrics import Evaluation
from support.ended import Ended

TIMEOUT_S = 200


def run_train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `convvae-train` in this process and return its exit code."""
    monkeypatch.setattr("sys.argv", ["convvae-train", *arguments])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as raised:
            main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    code = raised.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def evaluated(run_dir: Path, *, dataset: str | None = None, seed: int = 0, **arguments: Any) -> Evaluation:
    """Evaluate a run as `convvae-train evaluate` does."""
    return run_evaluate(run_dir, data=DataLocation(dataset=dataset), seed=seed, **arguments)


def run_two(arguments: list[str], *, code: str) -> list[Ended]:
    """Run two processes of `code`, started as torchrun does on a free port, to their end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running: list[subprocess.Popen[str]] = []
    try:
        for rank in ("0", "1"):
            given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                env=os.environ | given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            running.append(process)
        return [Ended(p.returncode, *texts) for p in running for texts in [p.communicate(timeout=TIMEOUT_S)]]
    finally:
        for process in running:
            process.kill()
            process.wait()
