"""Servers of a checkout, started and stopped."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.serving.checkout import Checkout
from bench.serving.server import RunningServer

__all__ = ["FLAGS", "launched", "stop"]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.005
FLAGS = ("--lanes", "1", "--threads", "1")
_FLAGS = (
    "--address", "127.0.0.1:0",
    "--metrics-address", "127.0.0.1:0",
    "--log-format", "json",
    "--device", "cpu",
    "--drain-delay-s", "0",
)  # fmt: skip


@contextmanager
def launched(
    checkout: Checkout, models: Path, log: Path, *, front: str = "", flags: Sequence[str] = FLAGS
) -> Iterator[tuple[RunningServer, float]]:
    """Start a server, and give it with the seconds until it serves. Its log goes to a file, as in operation.

    Raises:
        RuntimeError: It does not start; the message ends with its log.
    """
    words = [sys.executable, "-m", "convvae_service", "run", "--models", str(models), *_FLAGS, *flags]
    words += ["--front", front] if front else []
    with log.open("wb") as file:
        started_s = time.monotonic()
        process = subprocess.Popen(words, stderr=file, env=checkout.environ, start_new_session=True)
    try:
        line = _wait_for_serving(process, log)
        ready_s = time.monotonic() - started_s
        names = [model.partition("@")[0] for model in line["models"]]
        server = RunningServer(
            name=checkout.server_name(front),
            target=line["address"],
            metrics=line["metrics"],
            pid=process.pid,
            models={name.partition("-")[2] or Checkout.first_graph: name for name in names},
        )
        yield server, ready_s
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server that was told to end by SIGTERM, or after some time by SIGKILL."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_serving(process: "subprocess.Popen[bytes]", log: Path) -> dict[str, Any]:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        for text in log.read_text().splitlines():
            try:
                line: dict[str, Any] = json.loads(text)
            except ValueError:
                continue
            if line.get("message") == "serving":
                return line
        time.sleep(POLL_S)
    raise RuntimeError(f"a server did not start: {process.args!r}\n{log.read_text()}")
