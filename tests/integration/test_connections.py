"""The limits on connections, as callers see them."""

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from convvae import Client
from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from support.serving import ServerProcess, serving
from support.tiny_bundle import SHAPE
from support.wire import TIMEOUT_S, pixels, refused, stub_of

SAMPLE = pb.SampleRequest(count=1)
FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
from convvae_service.__main__ import main
main()
"""
PING, GO_AWAY, ENHANCE_YOUR_CALM = 6, 7, 11


@contextmanager
def connection(target: str) -> Iterator[vae_pb2_grpc.VaeServiceStub]:
    """A stub on a connection that no other channel shares."""
    with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield vae_pb2_grpc.VaeServiceStub(channel)


def test_connections_beyond_the_limit_are_refused(tiny_root: Path) -> None:
    """Two are answered and the third is UNAVAILABLE, until one of the two has gone."""
    with serving(tiny_root, "--max-connections", "2") as server, ExitStack() as stack:
        with connection(server.target) as first:
            assert first.Sample(SAMPLE, timeout=TIMEOUT_S).images.count == 1
            second = stack.enter_context(connection(server.target))
            assert second.Sample(SAMPLE, timeout=TIMEOUT_S).images.count == 1
            with connection(server.target) as third:
                assert refused(third.Sample, SAMPLE, timeout=3).code is grpc.StatusCode.UNAVAILABLE
        with connection(server.target) as third:
            reply = third.Sample(SAMPLE, timeout=TIMEOUT_S, wait_for_ready=True)
            assert reply.images.count == 1


class FewFilesServer(ServerProcess):
    """A server that may open 60 files."""

    program = ("-c", FEW_FILES)


def test_a_low_limit_of_open_files_limits_connections(tiny_root: Path) -> None:
    """The numbers are in the log; a caller above the limit is refused at once and does not wait."""
    server = FewFilesServer(tiny_root, "--front", "grpcio")
    try:
        target = server.target
        line = server.wait_for("open files are too few for --max-connections: raise their limit (ulimit -n)")
        assert (line["max_connections"], line["open_files"], line["connections"]) == (1000, 60, 28)
        with ExitStack() as stack:
            for _ in range(line["connections"]):
                stub = stack.enter_context(connection(target))
                assert stub.Sample(SAMPLE, timeout=TIMEOUT_S).images.count == 1
            with connection(target) as other:
                started_s = time.monotonic()
                assert refused(other.Sample, SAMPLE, timeout=5).code is grpc.StatusCode.UNAVAILABLE
                assert time.monotonic() - started_s < 2
            said = server.wait_for("the limit of connections is reached: others are refused", 10)
            assert (said["limit"], said["connections"]) == (28, 28)
            assert "convvae_calls_total" in server.metrics_page()
        with connection(target) as other:
            reply = other.Sample(SAMPLE, timeout=TIMEOUT_S, wait_for_ready=True)
            assert reply.images.count == 1
    finally:
        assert server.stop() == 0
    assert len(server.messages("the limit of connections is reached: others are refused")) == 1


@pytest.mark.usefixtures("each_front")
def test_calls_beyond_the_limit_of_a_connection_wait(tiny_root: Path) -> None:
    """A third call waits while two large ones run, and is answered after one of them; others are not kept."""
    images = np.zeros((1000, *SHAPE.as_tuple), np.uint8)
    flags = ("--max-calls-per-connection", "2", "--max-batch-rows", "1")
    with serving(tiny_root, *flags) as server, connection(server.target) as stub:
        stub.Sample(SAMPLE, timeout=TIMEOUT_S)
        request = pb.ScoreRequest(pixels=pixels(images))
        large = [stub.Score.future(request, timeout=TIMEOUT_S) for _ in range(2)]
        ended: list[str] = []
        for call in large:
            call.add_done_callback(lambda _: ended.append("large"))
        small = stub.Sample.future(SAMPLE, timeout=TIMEOUT_S)
        small.add_done_callback(lambda _: ended.append("small"))
        with connection(server.target) as other:
            assert other.Sample(SAMPLE, timeout=TIMEOUT_S).images.count == 1
            assert ended == []
        assert small.result().images.count == 1
        assert [len(call.result().elbo) for call in large] == [1000, 1000]
        assert ended[0] == "large"


def test_a_name_of_the_server_that_is_no_host_name(tiny_server: ServerProcess, front: str) -> None:
    """The list of a target's addresses travels as a name; the native front needs one host name."""
    target = f"ipv4:{tiny_server.target},{tiny_server.target}"
    with stub_of(target) as stub:
        if front == "native":
            assert refused(stub.Sample, SAMPLE).code is grpc.StatusCode.INTERNAL
        else:
            assert stub.Sample(SAMPLE, timeout=TIMEOUT_S).images.count == 1
    with grpc.insecure_channel(target, [("grpc.default_authority", "localhost")]) as channel:
        reply = vae_pb2_grpc.VaeServiceStub(channel).Sample(SAMPLE, timeout=TIMEOUT_S)
    assert reply.images.count == 1


@pytest.mark.usefixtures("each_front")
def test_metadata_beyond_the_limit_is_refused(tiny_root: Path) -> None:
    """A call well within the limit is answered; beyond it, every time, it is RESOURCE_EXHAUSTED of gRPC."""
    with serving(tiny_root, "--max-metadata-bytes", "4096") as server, stub_of(server.target) as stub:
        stub.Sample(SAMPLE, timeout=TIMEOUT_S, metadata=(("note", "x" * 3000),))
        for _ in range(5):
            refusal = refused(stub.Sample, SAMPLE, metadata=(("note", "x" * 4000),))
            assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refusal.retry_delay_s is None


@pytest.mark.usefixtures("each_front")
def test_metadata_has_room_by_default(tiny_root: Path) -> None:
    """A call may bring 15,000 bytes, every time: twice what gRPC surely lets pass."""
    with serving(tiny_root) as server, stub_of(server.target) as stub:
        for _ in range(10):
            stub.Sample(SAMPLE, timeout=TIMEOUT_S, metadata=(("note", "x" * 15_000),))
        refusal = refused(stub.Sample, SAMPLE, metadata=(("note", "x" * 17_000),))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_pings_in_quick_succession_end_a_connection(tiny_root: Path) -> None:
    """A caller that floods is told to calm down; one that keeps to the interval is left alone."""
    with serving(tiny_root, "--min-ping-interval-s", "60") as server:
        answered, reason = ping(server.target, count=6, interval_s=0.02)
        assert answered < 6
        assert reason == ENHANCE_YOUR_CALM
    with serving(tiny_root, "--min-ping-interval-s", "0.01") as server:
        assert ping(server.target, count=6, interval_s=0.05) == (6, None)


def ping(target: str, *, count: int, interval_s: float) -> tuple[int, int | None]:
    """Send HTTP/2 pings on a connection without calls.

    Returns how many were answered, and the error code of the server's GOAWAY or None.
    """
    host, port = target.split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=0.5) as connected:
        connected.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b""))
        for number in range(count + 1):
            with contextlib.suppress(TimeoutError, ConnectionError):
                # All that has come is read before more is sent: a closed connection forgets it then.
                patience_s = interval_s if number < count else 0.5
                connected.settimeout(patience_s)
                ended_s = time.monotonic() + patience_s
                while time.monotonic() < ended_s and (data := connected.recv(65536)):
                    received += data
            if number < count and GO_AWAY not in [kind for kind, _ in frames(received)]:
                connected.sendall(frame(PING, bytes(8)))
    kinds = frames(received)
    reasons = [int.from_bytes(payload[4:8], "big") for kind, payload in kinds if kind == GO_AWAY]
    return sum(kind == PING for kind, _ in kinds), reasons[0] if reasons else None


def frames(received: bytes) -> list[tuple[int, bytes]]:
    """Return the kinds and payloads of the frames in what has come."""
    found = []
    while received:
        length = int.from_bytes(received[:3], "big")
        found.append((received[3], received[9 : 9 + length]))
        received = received[9 + length :]
    return found


def frame(kind: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2 on stream 0 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, 0, 0, 0, 0, 0]) + payload


def test_an_old_connection_is_replaced_without_an_error(tiny_root: Path) -> None:
    """Callers are told to connect again when theirs is too old; a client, with its retries, sees no error."""
    with serving(tiny_root, "--max-connection-age-s", "0.3") as server:
        with Client(server.target) as vae:
            ended_s = time.monotonic() + 1.5
            calls = 0
            while time.monotonic() < ended_s:
                assert vae.sample(1).images.shape[0] == 1
                calls += 1
            assert calls > 5
        host, port = server.target.split(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connected:
            connected.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b""))
            received = b""
            while b"max_age" not in received:
                data = connected.recv(65536)
                assert data, received
                received += data


def test_a_call_beyond_the_grace_of_an_old_connection_ends(tiny_root: Path) -> None:
    """A call that outlives age and grace is UNAVAILABLE, which callers try again."""
    images = np.zeros((1000, *SHAPE.as_tuple), np.uint8)
    flags = (
        "--max-connection-age-s",
        "0.05",
        "--max-connection-age-grace-s",
        "0.05",
        "--max-batch-rows",
        "1",
    )
    with serving(tiny_root, *flags) as server, stub_of(server.target) as stub:
        requests = [pb.ScoreRequest(pixels=pixels(images)) for _ in range(8)]
        calls = [stub.Score.future(request, timeout=TIMEOUT_S) for request in requests]
        codes = {call.code() for call in calls}
    assert grpc.StatusCode.UNAVAILABLE in codes
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
