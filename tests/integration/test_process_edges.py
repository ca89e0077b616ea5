"""The process of `convvae-serve` at its edges: early signals, closed pipes and full disks."""

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from convvae import Client, ConvvaeError, Health
from support.interrupted_imports import interrupted, interrupting_words
from support.serving import ServerProcess, serving
from support.tiny_bundle import publish_tiny
from support.waiting import wait_until


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("pydantic_settings", signal.SIGINT),
        ("grpc", signal.SIGTERM),
        ("convvae_service.server.process", signal.SIGHUP),
    ],
)
def test_a_signal_during_the_imports_is_one_line(
    tiny_root: Path, module: str, number: signal.Signals
) -> None:
    """A server that is stopped before it has loaded its modules was stopped during the start."""
    words = ("run", "--models", str(tiny_root), "--device", "cpu")
    done = interrupted("convvae_service", module, number, *words)
    assert (done.returncode, done.stderr) == (0, f"stopped during the start by {number.name}\n")


def full_pipe() -> tuple[int, int]:
    """Return both ends of a pipe that takes no more bytes until it is read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return reader, writer


def test_a_signal_during_the_imports_does_not_wait_for_a_full_pipe(tiny_root: Path) -> None:
    """A process whose stderr nobody reads ends as any other."""
    reader, writer = full_pipe()
    command = interrupting_words("convvae_service", "numpy", signal.SIGTERM, "check", str(tiny_root))
    done = subprocess.run(command, stderr=writer, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("pydantic_settings", signal.SIGHUP),
        ("numpy", signal.SIGINT),
        ("convvae_service.repository.trial", signal.SIGTERM),
    ],
)
def test_a_check_that_is_stopped_has_no_verdict(tiny_root: Path, module: str, number: signal.Signals) -> None:
    """It says so in one line, and its exit code is that of the signal."""
    done = interrupted("convvae_service", module, number, "check", str(tiny_root))
    assert done.returncode == 128 + number
    assert done.stderr == f"error: not every version was checked: stopped by {number.name}\n"


@pytest.mark.usefixtures("each_front")
def test_a_closed_terminal_drains(tiny_root: Path) -> None:
    """SIGHUP is as SIGTERM, with the delay."""
    with serving(tiny_root, "--drain-delay-s", "0.1") as server:
        assert server.stop(signal.SIGHUP) == 0
        assert server.messages("draining")[0]["delay_s"] == 0.1


def test_under_nohup_a_closed_terminal_changes_nothing(tiny_root: Path) -> None:
    """SIGHUP stays ignored where it is ignored at the start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = ServerProcess(tiny_root)
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        server.wait_for("serving")
        server.send(signal.SIGHUP)
        time.sleep(0.3)
        assert not server.messages("draining")
    finally:
        assert server.stop() == 0


def free_address() -> str:
    """Return HOST:PORT of a port that nothing uses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def launch(
    root: Path, *flags: str, metrics: str = "off", stdout: int | None = None, stderr: int
) -> subprocess.Popen[bytes]:
    """Start a server that writes its log to a stream of the test's."""
    words = ["run", "--models", str(root), "--device", "cpu", "--metrics-address", metrics, *flags]
    command = [sys.executable, "-m", "convvae_service", *words, "--drain-delay-s", "0"]
    return subprocess.Popen(command, stdout=stdout, stderr=stderr)


def test_a_server_without_a_log_reader_goes_on(tiny_root: Path) -> None:
    """The pipe of the log is closed from the other end; the server drains when it is stopped."""
    reader, writer = os.pipe()
    server = launch(tiny_root, "--address", "127.0.0.1:0", stderr=writer)
    os.close(writer)
    with os.fdopen(reader) as log:
        assert any("serving" in line for line in log)
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0


def serves(vae: Client) -> bool:
    try:
        return vae.health() is Health.SERVING
    except ConvvaeError:
        return False


def dropped_lines(metrics: str) -> int:
    """Return how many lines of the log are lost, as the page of metrics says."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as page:
        found = re.search(r"^convvae_log_lines_dropped_total (\S+)$", page.read().decode(), re.MULTILINE)
    assert found
    return int(float(found[1]))


@pytest.mark.usefixtures("each_front")
def test_a_server_whose_log_is_on_a_full_disk_goes_on(tiny_root: Path) -> None:
    """Every line of the log is refused and counted; the server answers, and drains when it is stopped."""
    target, metrics = free_address(), free_address()
    with Path("/dev/full").open("w") as full:
        server = launch(
            tiny_root, "--address", target, metrics=metrics, stderr=full.fileno(), stdout=full.fileno()
        )
    try:
        with Client(target, timeout_s=30) as vae:
            wait_until(lambda: serves(vae))
            for _ in range(3):
                assert vae.sample(1).images.shape[0] == 1
        # The line of the start, and one for each call.
        wait_until(lambda: dropped_lines(metrics) >= 4)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


@pytest.mark.usefixtures("each_front")
@pytest.mark.slow
def test_a_server_whose_log_nobody_reads_goes_on(tiny_root: Path) -> None:
    """The pipe of the log is full: no call waits for it, and neither does the end of the server."""
    target = free_address()
    reader, writer = full_pipe()
    server = launch(tiny_root, "--address", target, stderr=writer)
    os.close(writer)
    try:
        with Client(target, timeout_s=30) as vae:
            wait_until(lambda: serves(vae))
            for _ in range(50):
                assert vae.sample(1).images.shape[0] == 1
    finally:
        server.send_signal(signal.SIGTERM)
        started_s = time.monotonic()
        assert server.wait(30) == 0
        assert time.monotonic() - started_s < 10
        os.close(reader)


@pytest.mark.usefixtures("each_front")
def test_the_last_lines_of_a_server_are_written(tiny_root: Path) -> None:
    """Lines that are logged just before the end are in the log, in their order."""
    with serving(tiny_root) as server, Client(server.target, timeout_s=30) as vae:
        for _ in range(20):
            vae.sample(1)
    messages = [line["message"] for line in server.lines]
    assert messages[-22:] == ["call"] * 20 + ["draining", "stopped"]


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)


def test_a_reader_of_a_check_that_goes_away(tmp_path: Path) -> None:
    """`check ROOT | head -1` and a full disk end in one line, and not with 0."""
    for _ in range(3):
        publish_tiny(tmp_path)
    check = f"{sys.executable} -m convvae_service check {tmp_path}"
    done = shell(f"set -o pipefail; {check} | head -n 1")
    assert done.stdout.startswith("tiny@1  ok")
    # A reader that is slow to leave lets the check end.
    if done.returncode:
        assert (done.returncode, done.stderr) == (
            1,
            "error: stdout cannot be written: Broken pipe: the output is not complete\n",
        )
    for words in (check, f"{sys.executable} -m convvae_service --version"):
        done = shell(f"{words} > /dev/full")
        message = (
            f"error: stdout cannot be written: {os.strerror(errno.ENOSPC)}: the output is not complete\n"
        )
        assert (done.returncode, done.stderr) == (1, message)


@pytest.mark.usefixtures("each_front")
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(tiny_root: Path, closed: str) -> None:
    """A check without standard streams has its exit code, and a server starts and drains."""
    assert shell(f"{sys.executable} -m convvae_service check {tiny_root} {closed}").returncode == 0
    flags = "--device cpu --metrics-address off --address 127.0.0.1:0 --drain-delay-s 0"
    run = f"{sys.executable} -m convvae_service run --models {tiny_root} {flags}"
    # In the foreground: otherwise `timeout` signals the process and then its group, which is two signals.
    assert shell(f"timeout --foreground --preserve-status 4 {run} {closed}").returncode == 0
