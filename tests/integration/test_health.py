import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import ServerProcess


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
