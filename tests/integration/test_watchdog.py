"""A server in this process whose engine hangs, as its callers and its probes see it."""

import asyncio
import logging
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from convvae_service.engine.stages import Rows, Stage
from convvae_service.server.lifecycle import Server
from open_inference import inference_pb2, inference_pb2_grpc
from support.local_server import started
from support.wire import TIMEOUT_S

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def hang(server: Server) -> threading.Event:
    """Make the engine's decoder hang until the returned event is set."""
    released = threading.Event()
    (version,) = server.parts.repository.loaded
    decode = version.engine.decode

    def wait(rows: Rows) -> Rows:
        assert released.wait(TIMEOUT_S)
        return decode.run(rows)

    version.engine.decode = Stage("decode", wait)
    return released


async def state(health: Any, name: str) -> int:
    reply = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
    return int(reply.status)


async def wait_for(health: Any, name: str, status: int) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while await state(health, name) != status:  # noqa: ASYNC110 - asked as a probe would
            await asyncio.sleep(0.02)


def server_live(target: str, *, after_s: float) -> bool:
    time.sleep(after_s)
    with grpc.insecure_channel(target) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        return bool(stub.ServerLive(inference_pb2.ServerLiveRequest(), timeout=TIMEOUT_S).live)


@pytest.mark.usefixtures("each_front")
async def test_an_engine_that_hangs_turns_liveness(tiny_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Liveness is red while a run takes too long, through a Watch too, and green when the engine moves."""
    with caplog.at_level(logging.WARNING):
        async with (
            started(tiny_root, "--watchdog-timeout-s", "1.5") as (server, target),
            grpc.aio.insecure_channel(target) as channel,
        ):
            health, stub = health_pb2_grpc.HealthStub(channel), vae_pb2_grpc.VaeServiceStub(channel)
            await wait_for(health, "liveness", SERVING)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="liveness"), timeout=TIMEOUT_S)
            assert (await watch.read()).status == SERVING
            released = hang(server)
            call = stub.Sample(pb.SampleRequest(count=2), timeout=TIMEOUT_S)
            try:
                assert (await watch.read()).status == NOT_SERVING
                assert await state(health, "liveness") == NOT_SERVING
                assert await state(health, "") == SERVING
                assert server.parts.metrics.registry.get_sample_value("convvae_stuck", {"part": "lane"}) == 1
            finally:
                released.set()
            assert (await call).images.count == 2
            assert (await watch.read()).status == SERVING
            assert server.parts.metrics.registry.get_sample_value("convvae_stuck", {"part": "lane"}) == 0
            watch.cancel()
    found = [record for record in caplog.records if record.message.startswith("a lane")]
    assert [record.message for record in found] == ["a lane is stuck", "a lane moves again"]
    assert found[0].facts["stage"] == "decode"  # type: ignore[attr-defined]


async def test_an_event_loop_that_stands_still_is_told_of(
    tiny_root: Path, each_front: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread logs it, and the native front says it, while nothing else moves; afterwards liveness does."""
    with caplog.at_level(logging.WARNING):
        async with (
            started(tiny_root, "--watchdog-timeout-s", "0.5") as (_, target),
            grpc.aio.insecure_channel(target) as channel,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            await wait_for(health, "liveness", SERVING)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="liveness"), timeout=TIMEOUT_S)
            assert (await watch.read()).status == SERVING
            ask = partial(server_live, target, after_s=0.9)
            live = asyncio.get_running_loop().run_in_executor(None, ask)
            time.sleep(1.6)  # noqa: ASYNC251 - this is what goes wrong
            messages = [record.message for record in caplog.records]
            assert "the event loop is stuck" in messages
            # By grpcio the call has waited for the event loop.
            assert not await live or each_front == "grpcio"
            assert (await watch.read()).status == NOT_SERVING
            assert (await watch.read()).status == SERVING
            watch.cancel()


async def test_without_a_watchdog_nothing_is_watched(tiny_root: Path) -> None:
    """A timeout of 0 leaves liveness as it is, however long a run takes."""
    async with (
        started(tiny_root, "--watchdog-timeout-s", "0") as (server, target),
        grpc.aio.insecure_channel(target) as channel,
    ):
        assert not [task for task in asyncio.all_tasks() if "Watchdog" in str(task.get_coro())]
        health, stub = health_pb2_grpc.HealthStub(channel), vae_pb2_grpc.VaeServiceStub(channel)
        released = hang(server)
        call = stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        try:
            await asyncio.sleep(0.3)
            assert await state(health, "liveness") == SERVING
        finally:
            released.set()
        await call


@pytest.mark.usefixtures("each_front")
async def test_a_drain_leaves_liveness(tiny_root: Path) -> None:
    """While the server drains with a watchdog that looks often, liveness stays green and the rest is red."""
    async with (
        started(tiny_root, "--watchdog-timeout-s", "1.5") as (server, target),
        grpc.aio.insecure_channel(target) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        await wait_for(health, "", SERVING)
        draining = asyncio.create_task(server.drain(delay_s=0.5, grace_s=1))
        await wait_for(health, "", NOT_SERVING)
        for _ in range(6):
            assert await state(health, "liveness") == SERVING
            await asyncio.sleep(0.05)
        await draining
