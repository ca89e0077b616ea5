"""A real server in a process of its own, on a free port of the loopback interface."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.waiting import wait_until

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class ServerProcess:
    """`convvae-serve run` on port 0, with its log read as it comes."""

    # The words of the command line after the interpreter.
    program: tuple[str, ...] = ("-m", "convvae_service")

    def __init__(self, models: Path, *flags: str, environ: Mapping[str, str] | None = None) -> None:
        self.started_s = time.monotonic()
        words = [
            sys.executable,
            *self.program,
            "run",
            "--models",
            str(models),
            "--log-format",
            "json",
        ]
        for flag, default in (
            ("--address", "127.0.0.1:0"),
            ("--metrics-address", "127.0.0.1:0"),
            ("--drain-delay-s", "0"),
            ("--device", "cpu"),
        ):
            if flag not in flags:
                words += [flag, default]
        self.process = subprocess.Popen(
            [*words, *flags], stderr=subprocess.PIPE, text=True, env={**os.environ, **(environ or {})}
        )
        self.lines: list[dict[str, Any]] = []
        self.noise: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if not self._is_kept(line):
                continue
            with self._changed:
                try:
                    self.lines.append(json.loads(line))
                except ValueError:
                    self.noise.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _is_kept(self, line: str) -> bool:
        """Return whether a line of the log is kept; a subclass may drop some."""
        del line
        return True

    def wait_for(self, message: str, timeout_s: float = START_TIMEOUT_S, **values: object) -> dict[str, Any]:
        """Return the first log line with this message and these values."""
        wanted = {"message": message, **values}
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for line in self.lines:
                    if wanted.items() <= line.items():
                        return line
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or self._ended:
                    raise AssertionError(f"no log line {wanted}; log: {self.lines} {self.noise}")
                self._changed.wait(left_s)

    def messages(self, message: str) -> list[dict[str, Any]]:
        """Return all log lines so far with this message."""
        with self._changed:
            return [line for line in self.lines if line.get("message") == message]

    @property
    def target(self) -> str:
        """HOST:PORT of the gRPC server."""
        return str(self.wait_for("serving")["address"])

    @property
    def metrics_target(self) -> str:
        """HOST:PORT of the metrics."""
        return str(self.wait_for("serving")["metrics"])

    def metrics_page(self) -> str:
        """Return the page of metrics."""
        with urllib.request.urlopen(f"http://{self.metrics_target}/metrics", timeout=10) as page:
            return str(page.read().decode())

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name and labels, as the page writes them."""
        lines = self.metrics_page().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def wait_for_metric(self, line: str) -> None:
        """Return when the page of metrics has this line."""
        wait_until(lambda: line in self.metrics_page().splitlines())

    def calls_in_flight(self) -> float:
        """Return how many calls the server says it answers now."""
        return self.metrics()["convvae_calls_in_flight"]

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop the server and return its exit code."""
        if self.process.poll() is None:
            self.send(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code of a server that is ending; it is killed when it does not."""
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop; log: {self.lines} {self.noise}") from None
        finally:
            self._reader.join()
            assert self.process.stderr is not None
            self.process.stderr.close()


@contextmanager
def serving(models: Path, *flags: str, environ: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    """Run a server for the length of a `with` block."""
    server = ServerProcess(models, *flags, environ=environ)
    try:
        server.wait_for("serving")
        yield server
    finally:
        server.stop()


def start_failure(*flags: str) -> str:
    """Run a server that must not start, and return its one line of complaint."""
    words = [sys.executable, "-m", "convvae_service", "run", "--metrics-address", "127.0.0.1:0", *flags]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    # It never served.
    assert "stopped" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0].removeprefix("error: ")
