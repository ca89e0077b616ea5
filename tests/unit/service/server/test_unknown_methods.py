"""Calls of methods that nobody has registered."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.local_server import started
from support.raw_http2 import connect, frame, grpc_headers, header_block

HEADERS, END_STREAM, END_HEADERS = 1, 1, 4


async def is_served(address: str) -> bool:
    """Return whether a new connection is answered."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        answer = await check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize("path", ["/\xe9/\xe9", "\xff", "/\x80" * 5000])
async def test_a_name_that_is_no_utf_8_ends_only_its_call(tiny_root: Path, path: str) -> None:
    """The server goes on to take calls on new connections."""
    async with started(tiny_root, "--front", "grpcio") as (_, address):
        connected = connect(address)
        block = grpc_headers("").replace(header_block({":path": "/"}), header_block({":path": path}))
        connected.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
        assert await is_served(address)
        assert await is_served(address)
        connected.close()


async def test_an_unknown_method_is_unimplemented(tiny_root: Path) -> None:
    """Each of many calls at once is refused, and the server goes on."""
    async with started(tiny_root, "--front", "grpcio") as (_, address):
        async with grpc.aio.insecure_channel(address) as channel:
            unary: Any = channel.unary_unary
            calls = [unary(f"/nobody/{number}")(b"x", timeout=10) for number in range(200)]
            codes = {await call.code() for call in calls}
        assert codes == {grpc.StatusCode.UNIMPLEMENTED}
        assert await is_served(address)
