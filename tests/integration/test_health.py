import signal
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.raw_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    SETTINGS,
    connect,
    frame,
    grpc_headers,
    grpc_message,
)
from support.serving import ServerProcess, serving


@pytest.mark.parametrize("name", ["", "tiny", "convvae.v1.VaeService", "liveness"])
def test_every_name_is_serving(tiny_server: ServerProcess, name: str) -> None:
    """Overall, the service, each model and liveness are SERVING once the server is ready."""
    with grpc.insecure_channel(tiny_server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_unknown_name_is_not_found(tiny_server: ServerProcess) -> None:
    """A name that the server does not have is NOT_FOUND, as the health protocol says."""
    with grpc.insecure_channel(tiny_server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="no-such-model"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.usefixtures("each_front")
def test_a_watcher_without_room_holds_up_no_drain(tiny_root: Path) -> None:
    """A caller of Watch whose window is 0, to whom nothing can be written, leaves health to the others."""
    with serving(tiny_root, "--drain-delay-s", "2", "--grace-s", "0.5") as server:
        room = frame(SETTINGS, 0, 0, b"\0\x04" + bytes(4))
        with connect(server.target, room) as stuck, grpc.insecure_channel(server.target) as channel:
            request = grpc_message(health_pb2.HealthCheckRequest().SerializeToString())
            stuck.sendall(frame(HEADERS, END_HEADERS, 1, grpc_headers("grpc.health.v1.Health/Watch")))
            stuck.sendall(frame(DATA, END_STREAM, 1, request))
            # The headers of the answer come; its message has no room.
            assert stuck.recv(65536)
            time.sleep(0.5)
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            server.send(signal.SIGTERM)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert server.wait() == 0
