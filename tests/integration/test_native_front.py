"""The native front in a real server: when it is chosen, what it refuses, how it does without open files."""

import queue
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import pytest

from convvae.v1 import vae_pb2 as pb
from open_inference.inference_pb2 import ModelInferRequest
from support.inference_wire import encode_request, inference_stub
from support.raw_connection import RawConnection
from support.raw_http2 import END_HEADERS, HEADERS, connect, frame, grpc_headers
from support.serving import ServerProcess, serving
from support.wire import TIMEOUT_S, refused, stub_of

SAMPLE = pb.SampleRequest(count=1)
WAITED = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
NEARLY_USED_UP = "open files are nearly used up: connections may have to wait, raise their limit (ulimit -n)"
PING = 6
MIB = 1 << 20
FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
from convvae_service.__main__ import main
main()
"""


class FewFilesServer(ServerProcess):
    """A server that may open 60 files."""

    program = ("-c", FEW_FILES)


def test_the_log_has_the_front_and_the_reason(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the native front serves; a setting that it lacks changes that, and says so."""
    monkeypatch.delenv("CONVVAE_SERVE_FRONT", raising=False)
    with serving(tiny_root) as server:
        line = server.wait_for("serving")
        assert (line["front"], line["front_reason"]) == ("native", "no setting needs --front grpcio")
    with serving(tiny_root, "--max-connections", "5") as server:
        line = server.wait_for("serving")
        assert line["front"] == "grpcio"
        assert line["front_reason"].startswith("--max-connections needs --front grpcio: ")


def test_a_front_that_cannot_serve_does_not_start(tmp_path: Path) -> None:
    """One line names the setting, before anything is read: the repository does not even exist."""
    words = [sys.executable, "-m", "convvae_service", "run", "--models", str(tmp_path / "none")]
    done = subprocess.run(
        [*words, "--front", "native", "--max-connection-age-s", "60"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: --max-connection-age-s needs --front grpcio: the native front has no age of connections\n"
    )


def test_connections_beyond_the_open_files_wait(tiny_root: Path) -> None:
    """The log warns once before it comes to that; when files are free again, those who wait are answered."""
    server = FewFilesServer(tiny_root, "--front", "native")
    try:
        target = server.target
        with ExitStack() as stack:
            for _ in range(29):
                stack.enter_context(connect(target))
            warning = server.wait_for(NEARLY_USED_UP, 10)
            assert warning["open_files"] >= warning["limit"] == 54
            with stub_of(target) as stub:
                assert stub.Sample(SAMPLE, timeout=TIMEOUT_S).images.count == 1
            for _ in range(40):
                stack.enter_context(connect(target))
            with stub_of(target) as stub:
                assert refused(stub.Sample, SAMPLE, timeout=1).code in WAITED
        with stub_of(target) as stub:
            assert stub.Sample(SAMPLE, timeout=TIMEOUT_S, wait_for_ready=True).images.count == 1
    finally:
        assert server.stop() == 0
    assert len(server.messages(NEARLY_USED_UP)) == 1
    assert server.noise == []
    assert not [line for line in server.lines if line["logger"].startswith("pygrpc_native")]


def test_silent_callers_are_pinged(tiny_root: Path) -> None:
    """After the interval, on a connection without a call, so that callers that have vanished are noticed."""
    flags = ("--front", "native", "--keepalive-interval-s", "0.2")
    with serving(tiny_root, *flags) as server, connect(server.target) as silent:
        received = b""
        while PING not in kinds(received):
            data = silent.recv(65536)
            assert data, received
            received += data


def kinds(received: bytes) -> list[int]:
    """Return the kinds of the frames in what has come."""
    found = []
    while len(received) >= 9:
        found.append(received[3])
        received = received[9 + int.from_bytes(received[:3], "big") :]
    return found


@pytest.mark.slow
def test_calls_that_are_half_sent_end_with_the_server(tiny_root: Path) -> None:
    """They hold a stop for half a second, and not for its grace."""
    with (
        serving(tiny_root, "--front", "native", "--grace-s", "60") as server,
        connect(server.target) as silent,
    ):
        silent.sendall(frame(HEADERS, END_HEADERS, 1, grpc_headers("convvae.v1.VaeService/Sample")))
        with stub_of(server.target) as stub:
            assert stub.Sample(SAMPLE, timeout=TIMEOUT_S).images.count == 1
        started_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started_s < 5
        while silent.recv(65536):
            pass


def test_parts_of_messages_end_no_idle_stream(tiny_root: Path) -> None:
    """Other callers' requests that have arrived in part have memory, and a stream that waits goes on."""
    flags = ("--front", "native", "--max-message-bytes", str(8 * MIB), "--max-pending-bytes", str(32 * MIB))
    requests: queue.Queue[ModelInferRequest | None] = queue.Queue()
    with serving(tiny_root, *flags) as server, ExitStack() as held:
        stub = held.enter_context(inference_stub(server.target))
        replies = stub.ModelStreamInfer(iter(requests.get, None), timeout=TIMEOUT_S)
        requests.put(encode_request())
        assert next(replies).error_message == ""
        parts = held.enter_context(closing(RawConnection(server.target)))
        for _ in range(45):
            prefix = b"\0" + MIB.to_bytes(4, "big")
            parts.send_data(parts.begin("/convvae.v1.VaeService/Encode"), prefix + bytes(100), timeout_s=5)
            # A watch that looks 50 times a second sees each of them.
            time.sleep(0.03)
        requests.put(encode_request())
        assert next(replies).error_message == ""
        requests.put(None)


def test_a_part_of_a_message_is_dropped_after_the_time_limit(tiny_root: Path) -> None:
    """Its connection is closed. Idle callers, and those that go on calling, notice nothing."""
    flags = ("--front", "native", "--max-call-s", "2")
    with serving(tiny_root, *flags) as server, ExitStack() as held:
        stub = held.enter_context(stub_of(server.target))
        idle = held.enter_context(closing(RawConnection(server.target)))
        stub.Sample(SAMPLE, timeout=TIMEOUT_S)
        # The server's look at its own memory comes first.
        time.sleep(0.6)
        part = held.enter_context(closing(RawConnection(server.target)))
        began_s = time.monotonic()
        prefix = b"\0" + (60 * MIB).to_bytes(4, "big")
        sent = part.send_data(
            part.begin("/convvae.v1.VaeService/Encode"), prefix + bytes(50 * MIB), timeout_s=20
        )
        assert sent > 50 * MIB
        while not part.closed:
            assert time.monotonic() < began_s + TIMEOUT_S
            part.read(0.05)
            stub.Sample(SAMPLE, timeout=TIMEOUT_S)
        assert time.monotonic() - began_s >= 2
        idle.read(0.05)
        assert not idle.closed
