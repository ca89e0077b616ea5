"""The exit codes of `convvae-serve` are those that docs/service.md states."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convvae.v1 import vae_pb2 as pb
from support.serving import ServerProcess, serving
from support.tiny_bundle import SHAPE
from support.wire import TIMEOUT_S, pixels, stub_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "service.md"
# A server whose decoder answers the warm-up and never a call.
HANGING = """
import threading
from convvae_service.engine import stages as engine

warm = engine.Engine.warm

def warm_then_hang(self, max_batch_rows):
    warm(self, max_batch_rows)
    self.decode = engine.Stage("decode", lambda rows: threading.Event().wait())

engine.Engine.warm = warm_then_hang
from convvae_service.__main__ import main
main()
"""


# A server with a thread that never ends; closing may take 1 s.
UNENDING = """
import asyncio, threading
from convvae_service.repository import loader
from convvae_service.server import process
from convvae_service.repository import watch
process._MAX_CLOSE_S = 1.0

def look(*arguments):
    threading.Event().wait()

async def close(self):
    await asyncio.to_thread(threading.Event().wait)

{patch}
from convvae_service.__main__ import main
main()
"""
# A server whose drain fails.
FAILING = """
from convvae_service.__main__ import main
from convvae_service.server.health import HealthServicer

def fail(self):
    raise RuntimeError("as by a fault")

HealthServicer.set_unready = fail
main()
"""


# A server that gets a second signal when Python ends.
LATE = """
import atexit, os, signal
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
from convvae_service.__main__ import main
main()
"""


class LateServer(ServerProcess):
    """A server that is signalled again after everything is closed."""

    program = ("-c", LATE)


class HangingServer(ServerProcess):
    """A server whose decoder hangs."""

    program = ("-c", HANGING)


def stopped(root: Path) -> int:
    """Stop an idle server."""
    with serving(root) as server:
        return server.stop()


def stopped_while_loading(root: Path) -> int:
    """Stop a server before it serves."""
    server = ServerProcess(root)
    server.wait_for("model version loaded")
    return server.stop()


def stopped_twice_under_load(root: Path) -> int:
    """Signal twice while calls of thousands of rows wait, which would take much longer to answer."""
    images = np.zeros((1000, *SHAPE.as_tuple), np.uint8)
    with serving(root, "--max-batch-rows", "1", "--drain-delay-s", "60") as server:
        with stub_of(server.target) as stub:
            request = pb.ScoreRequest(pixels=pixels(images))
            calls = [stub.Score.future(request, timeout=TIMEOUT_S) for _ in range(4)]
            server.send(signal.SIGTERM)
            server.wait_for("draining")
            started_s = time.monotonic()
            code = server.stop()
            assert time.monotonic() - started_s < 3
            for call in calls:
                call.cancel()
        return code


def stopped_with_a_batch_that_never_ends(root: Path) -> int:
    """Signal once while the engine hangs; the grace passes, and the process ends all the same."""
    server = HangingServer(root, "--grace-s", "0.2")
    with stub_of(server.target) as stub:
        call = stub.Sample.future(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        time.sleep(0.3)
        code = server.stop()
        assert call.code() is not None
    assert server.messages("a batch does not end: stopping while it runs")
    return code


class UnlistedServer(ServerProcess):
    """A server whose look at the repository hangs."""

    program = ("-c", UNENDING.format(patch="watch.look = look"))


class UnendingServer(ServerProcess):
    """A server in which a version is loaded for ever."""

    program = ("-c", UNENDING.format(patch="loader.Loader.close = close"))


class FailingServer(ServerProcess):
    """A server whose drain fails."""

    program = ("-c", FAILING)


def stopped_while_a_disk_hangs(root: Path) -> int:
    """Signal once while a look at the repository hangs: all calls are answered, and the process ends."""
    server = UnlistedServer(root, "--watch", "--watch-interval-s", "0.1")
    server.wait_for("serving")
    time.sleep(0.5)
    code = server.stop()
    assert server.messages("a thread does not end: stopping while it runs")
    return code


def stopped_while_a_version_loads_for_ever(root: Path) -> int:
    """Signal once while the threads that load versions do not end."""
    server = UnendingServer(root)
    server.wait_for("serving")
    code = server.stop()
    assert server.messages("a thread does not end: stopping while it runs")
    return code


def stopped_twice_after_the_drain(root: Path) -> int:
    """Signal again when the drain is done and closing hangs."""
    server = UnendingServer(root)
    server.wait_for("serving")
    server.send(signal.SIGTERM)
    server.wait_for("draining")
    time.sleep(0.5)
    started_s = time.monotonic()
    code = server.stop()
    assert time.monotonic() - started_s < 0.4
    assert server.messages("second signal: stopping at once")
    return code


def stopped_twice_at_the_very_end(root: Path) -> int:
    """Signal again when the event loop has ended."""
    server = LateServer(root)
    server.wait_for("serving")
    code = server.stop()
    assert server.noise == ["second signal: stopped by SIGINT\n"]
    return code


def stopped_by_a_drain_that_fails(root: Path) -> int:
    """Signal once; a fault ends the drain."""
    server = FailingServer(root)
    server.wait_for("serving")
    code = server.stop()
    assert server.messages("internal error: the drain ends early")
    return code


def command(*words: str) -> int:
    """Run a command to its end."""
    process = [sys.executable, "-m", "convvae_service", *words]
    return subprocess.run(process, capture_output=True, timeout=60, check=False).returncode


SCENES: dict[int, list[Callable[[Path], int]]] = {
    0: [
        stopped,
        stopped_while_loading,
        stopped_while_a_disk_hangs,
        stopped_while_a_version_loads_for_ever,
        lambda root: command("check", str(root)),
    ],
    1: [
        stopped_twice_under_load,
        stopped_with_a_batch_that_never_ends,
        stopped_twice_after_the_drain,
        stopped_twice_at_the_very_end,
        stopped_by_a_drain_that_fails,
    ],
    2: [
        lambda root: command("run", "--models", str(root), "--lanes", "65"),
        lambda root: command("run", "--models", str(root), "--no-such-flag"),
        lambda root: command("run", "--models", str(root), "--address", "192.0.2.1:1"),
        lambda root: command("check", str(root / "absent")),
    ],
}


def test_every_documented_code_has_its_scenes() -> None:
    """The table of the document and the scenes here name the same codes."""
    rows = re.findall(r"^\| (\d+) \|", DOCUMENT.read_text().split("| exit code |")[1], re.MULTILINE)
    assert [int(row) for row in rows] == sorted(SCENES)


@pytest.mark.usefixtures("each_front")
@pytest.mark.parametrize(("code", "scene"), [(code, s) for code, scenes in SCENES.items() for s in scenes])
def test_exit_codes(tiny_root: Path, code: int, scene: Callable[[Path], int]) -> None:
    """Each way to end has the code that the table gives it."""
    assert scene(tiny_root) == code
