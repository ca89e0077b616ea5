"""The harness of the serving figures: what it counts, and that its callers find every failure."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.serving import run as run_module
from bench.serving.callers import Tally
from bench.serving.cell import Cell
from bench.serving.cells import FULL
from bench.serving.checkout import ROOT, Checkout, checkout_of
from bench.serving.connection import CallFailed
from bench.serving.connections import connect
from bench.serving.conversation import Conversation
from bench.serving.grpc_connection import GrpcConnection
from bench.serving.parts import ELSEWHERE, OUTSIDE, divide, part_of
from bench.serving.plot import plot
from bench.serving.processes import cpu_s
from bench.serving.ratios import ratios
from bench.serving.report import report_of
from bench.serving.request import Request
from bench.serving.run import Run
from bench.serving.server import Batches, RunningServer
from bench.serving.summary import Spread, Summary
from bench.serving.window import Window
from support.serving import serving
from support.tiny_bundle import publish_tiny

LARGE = 1 << 20


@pytest.mark.parametrize("cell", FULL, ids=str)
def test_a_cell_is_read_as_it_is_written(cell: Cell) -> None:
    """Each cell of the full run has a text, and the text names no other cell."""
    assert Cell.of(str(cell)) == cell


@pytest.mark.parametrize("text", ["", "Encode", "Encode 1", "Score 1 x1", "Encode x1", "Encode 1 x1 28x28"])
def test_a_text_that_is_no_cell_is_refused(text: str) -> None:
    """The message shows the text and the form."""
    with pytest.raises(ValueError, match="write METHOD ROWS xCALLERS"):
        Cell.of(text)


def test_batches_of_a_window_are_those_since_its_start() -> None:
    """The mean is over the window; without a batch there is none."""
    assert Batches(10, 100).since(Batches(6, 40)) == 15
    assert Batches(6, 40).since(Batches(6, 40)) is None


def window(cpu_us: float, bare_us: float) -> Window:
    return Window(
        cpu_us=cpu_us,
        bare_us=bare_us,
        batch_rows=16.0,
        rows_per_s=1000.0,
        latencies_ms=[1.0, 2.0, 3.0],
        caller_us=50.0,
        failed=0,
        errors=[],
    )


def test_beyond_bare_is_the_difference_within_a_window() -> None:
    """Not the difference of the medians: both vary together with the machine."""
    summary = Summary.of([window(100, 50), window(220, 150), window(90, 60)])
    assert summary.beyond_us == Spread(50, 40, 60)
    assert (summary.cpu_us.median, summary.bare_us.median, summary.p50_ms) == (100, 60, 2)


def test_ratios_are_to_one_server_of_the_cell() -> None:
    """A cell without it has none."""
    figures = [Summary.of([window(cpu_us, 50)]).as_dict() for cpu_us in (100, 25)]
    cells = {
        "Encode 1 x1": dict(zip(("old", "new"), figures, strict=True)),
        "Empty 1 x1": {"new": figures[1]},
    }
    found = ratios(cells, "old")
    assert found == {"Encode 1 x1": {"new": {"cpu": 0.25, "rows_per_s": 1, "p50_ms": 1, "p99_ms": 1}}}


def test_a_sample_belongs_to_its_innermost_part() -> None:
    """Frames of libraries count for the part that called them."""
    outer = "thread (7): x;main (convvae_service/__main__.py:3);run (/x/convvae_service/calls/runner.py:9)"
    assert part_of(f"{outer};put (/x/convvae_service/batching/batcher.py:1);put (queue.py:2)") == "queue"
    assert part_of(f"{outer};answer (convvae_service/api/serialize.py:1);tobytes (numpy/x.py:2)") == "reply"
    service = "convvae_service/calls/service.py"
    assert part_of(f"{outer};_answer ({service}:1)") == "reply"
    reader = "convvae_service/calls/request_reader.py"
    assert part_of(f"{outer};_answer ({service}:1);RequestReader.read ({reader}:2)") == "parse"
    assert part_of(f"{outer};C.run (convvae_service/engine/stages.py:1)") == "engine"
    assert part_of(f"{outer};answer (convvae_service/api/servicer.py:1)") == "path of the call"
    assert part_of("thread (7): MainThread;run (asyncio/runners.py:118)") == ELSEWHERE


def test_the_time_of_a_thread_is_divided_by_its_samples() -> None:
    """A thread without samples runs no Python; the sum stays what the threads took."""
    lines = [
        "thread (7): lane;run (convvae_service/engine/session.py:1) 3",
        "thread (7): lane;take (convvae_service/batching/batcher.py:1) 1",
    ]
    found = divide(lines, {7: 4.0, 8: 2.0})
    assert (found["engine"], found["queue"], found[OUTSIDE]) == (3.0, 1.0, 2.0)
    assert sum(found.values()) == 6.0


def test_processor_time_is_that_of_the_whole_tree() -> None:
    """The work of a child's child counts."""
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert 0.3 <= cpu_s(process.pid) < 5
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def grpc_target() -> Iterator[str]:
    """A server whose method echoes a message, and refuses an empty one."""

    def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
        if not request:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "empty")
        return request

    handler = grpc.method_handlers_generic_handler(
        "bench.Echo", {"Call": grpc.unary_unary_rpc_method_handler(echo)}
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def echo_request(body: bytes) -> Request:
    return Request(protocol="grpc", path="/bench.Echo/Call", body=body)


@pytest.mark.parametrize("size", [1, 16384, 65535, LARGE])
def test_grpc_calls_of_any_size_are_answered(grpc_target: str, size: int) -> None:
    """A request and a reply larger than the windows of HTTP/2, several times over one connection."""
    connection = connect(grpc_target, echo_request(bytes(size)))
    for _ in range(4):
        connection.call()
    connection.close()


def test_a_closed_grpc_connection_is_renewed(grpc_target: str) -> None:
    """A connection that the server keeps is kept, and one that it closed is opened again."""
    connection = connect(grpc_target, echo_request(b"x"))
    assert isinstance(connection, GrpcConnection)
    first = connection._socket
    connection.call()
    connection.renew()
    assert connection._socket is first
    first.shutdown(socket.SHUT_RDWR)
    connection.renew()
    connection.call()
    connection.close()


def test_a_grpc_error_is_found_and_the_connection_goes_on(grpc_target: str) -> None:
    """An error has no message; it is not mistaken for a short reply."""
    connection = connect(grpc_target, echo_request(b""))
    for _ in range(2):
        with pytest.raises(CallFailed):
            connection.call()
    connection.close()


class Replies(http.server.BaseHTTPRequestHandler):
    """Echoes a body; fails on an empty one; closes the connection after `last`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if body else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = body == b"last"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def http_target() -> Iterator[str]:
    """A server of HTTP/1.1."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replies) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_http_calls_are_answered_or_found_to_fail(http_target: str) -> None:
    """A large body comes back whole, and status 500 is a failure."""
    for body, fails in ((b"x" * LARGE, False), (b"", True)):
        connection = connect(http_target, Request(protocol="http", path="/", body=body))
        for _ in range(2):
            if fails:
                with pytest.raises(CallFailed, match="500"):
                    connection.call()
            else:
                connection.call()
        connection.close()


def test_a_closed_http_connection_is_renewed_between_windows(http_target: str) -> None:
    """Without `renew` the next call is an OSError, which ends its caller and is counted."""
    connection = connect(http_target, Request(protocol="http", path="/", body=b"last"))
    connection.call()
    time.sleep(0.1)
    connection.renew()
    connection.call()
    report = Tally(5.0).call_in_threads([connection.call], CallFailed)
    assert report["failed"] == len(report["latencies_ms"]) == 1
    connection.close()


def test_another_commit_is_unpacked_and_an_unknown_one_refused() -> None:
    """The files of the commit are there, and gone afterwards."""
    with checkout_of("HEAD") as checkout:
        assert (checkout.root / "service" / "convvae_service" / "__main__.py").is_file()
        assert checkout.server_name("") == "HEAD"
    assert not checkout.root.exists()
    with pytest.raises(ValueError, match="--against no-such-commit"), checkout_of("no-such-commit"):
        pass


@pytest.mark.slow
def test_a_server_is_measured_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty call of a real server, as JSON, Markdown and PNG; what has no graphs is named."""
    publish_tiny(tmp_path / "models")
    run = Run(pairs=2, seconds=0.2, limit_s=60)
    with serving(tmp_path / "models") as server, Conversation("bare", str(tmp_path), "1") as bare:
        measured = RunningServer(
            name="tiny",
            target=server.target,
            metrics=server.metrics_target,
            pid=server.process.pid,
            models={Cell.graph: "unused"},
        )
        run.measure([Cell.of("Empty 1 x2"), Cell.of("Encode 1 x1 64x64x3")], [measured], bare)
    figures = run.cells["Empty 1 x2"]["tiny"]
    assert figures["windows"] == 2
    assert 5 < figures["cpu_us"]["median"] == figures["beyond_us"]["median"]
    assert run.left_out == {"Encode 1 x1 64x64x3": "no server has its graphs"}
    run.publish(tmp_path / "out.json", figure="calls", reference="", more={"idle": {}, "parts": {}})
    assert "| Empty 1 x2 | tiny |" in (tmp_path / "out.md").read_text()
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_cells_after_the_limit_are_named() -> None:
    """A run ends in time, and says what it did not measure."""
    run = Run(pairs=1, seconds=0.1, limit_s=-1)
    run.measure([Cell.of("Encode 1 x1")], [], bare=None)  # type: ignore[arg-type]
    assert run.left_out == {"Encode 1 x1": "the time was used up"}


def test_a_window_with_a_failure_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out and named; the other windows remain."""
    windows = [window(100, 50), replace(window(1, 50), failed=1, errors=["CallFailed: no"]), window(120, 50)]
    monkeypatch.setattr(run_module, "measure", lambda *_, **__: [("native", each) for each in windows])
    run = Run(pairs=3, seconds=0.1, limit_s=60)
    server = RunningServer(name="native", target="", pid=0, models={Cell.graph: "mnist"})
    run.measure([Cell.of("Encode 1 x1")], [server], bare=None)  # type: ignore[arg-type]
    figures = run.cells["Encode 1 x1"]["native"]
    assert (figures["windows"], figures["cpu_us"]["median"]) == (2, 110)
    assert "1 of 3 windows had calls that failed: CallFailed: no" in run.left_out["Encode 1 x1, native"]


def test_the_report_has_every_part(tmp_path: Path) -> None:
    """Starts, parts and failures are in it; a bar at or below zero does not break the plot."""
    figures = Summary.of([window(50, 60)]).as_dict()
    spread = {"median": 0.5, "q1": 0.4, "q3": 0.6}
    result = {
        "figure": "calls",
        "cells": {"Encode 1 x16": {"native": figures}},
        "idle": {"native": {"ready_s": spread, "resident_mib": spread}},
        "parts": {"Encode 1 x16, native": {"engine": 50.0}},
        "left_out": {"mosec": "not installed"},
        "reference": "grpcio",
        "ratios": {"Encode 1 x16": {"native": {"cpu": 0.25, "rows_per_s": 4, "p50_ms": 0.3, "p99_ms": 0.4}}},
        "date": "2026-01-01",
        "commit": "c",
        "hardware": "h",
        "command": "python x",
    }
    text = report_of(result)
    for words in (
        "| native | 0.5 (0.4 to 0.6)",
        "| 50.0 |",
        "| 0.25 | 4 |",
        "- mosec: not",
    ):
        assert words in text
    plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_the_programs_are_where_make_calls_them() -> None:
    """The results are under the names of the programs."""
    assert run_module.__file__ is not None
    for name in ("serving_speed", "serving_peers"):
        assert (ROOT / "tests" / "bench" / f"{name}.py").is_file()
        done = subprocess.run(
            [sys.executable, ROOT / "tests" / "bench" / f"{name}.py", "--help"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "BENCH_ROOT" in done.stdout


def test_both_fronts_of_the_working_copy_are_measured() -> None:
    """The help of the server names them."""
    assert Checkout("working copy", ROOT).fronts() == ["native", "grpcio"]
