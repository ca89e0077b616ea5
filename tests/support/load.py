"""Calls to a server from a process of its own: `python -P tests/support/load.py` with a `Load` as JSON.

It ends after `calls` or `seconds`, or when its standard input closes, and prints a `Report` as JSON.
"""

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

sys.path.insert(0, str(Path(__file__).parents[1]))
from convvae import AsyncClient, RetryConfig
from convvae.errors import ConvvaeError
from convvae.v1 import vae_pb2, vae_pb2_grpc
from support.wire import pixels, png

__all__ = ["Load", "Report", "RunningLoad"]

# Beyond the seconds that a load takes by itself: start, the last answers, JSON.
SPARE_S = 60.0
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


@dataclass(frozen=True, kw_only=True)
class Load:
    """A load: the method to call, how often, for how long.

    Attributes:
        target: Where to.
        via: `stub` encodes by bare stubs, `client` by this project's client, `file` encodes a PNG file;
            `sample` draws one image; `health` asks for health.
        seconds: After these no new call begins.
        calls: After so many no new call begins; 0 for no such limit.
        at_least: So many are made even when the standard input closes before.
        connections: Connections that the calls take in turn.
        in_flight: Calls at once, each followed by the next; with `rate`, no call begins while so many fly.
        rate: Calls a second that begin whether or not others have ended; 0 waits for answers.
        rows: Images in a call.
        shape: Height, width and channels of an image.
        timeout_s: Least and most seconds for a call, drawn evenly.
        pause_s: Seconds between an answer and the next call.
        retries: Of the client.
        follow_health: Of the client.
        token: Bearer token of each call, "" for none.
        model: Model to sample from, "" for the only one.
        certificate: PEM file of the authority that has signed the server's certificate; "" for plain text.
    """

    target: str
    via: Literal["stub", "client", "file", "sample", "health"] = "stub"
    seconds: float = 300.0
    calls: int = 0
    at_least: int = 0
    connections: int = 1
    in_flight: int = 1
    rate: float = 0.0
    rows: int = 1
    shape: tuple[int, int, int] = (8, 6, 1)
    timeout_s: tuple[float, float] = (20.0, 20.0)
    pause_s: float = 0.0
    retries: int = 0
    follow_health: bool = False
    token: str = ""
    model: str = ""
    certificate: str = ""


@dataclass(kw_only=True)
class Report:
    """The results of the calls; times are those of the monotonic clock, which all processes share.

    Attributes:
        codes: Calls by status code.
        latencies_ms: Of each call that was answered OK, from when it was due to its answer.
        answered_s: When.
        lost_s: When the calls ended that were not answered OK.
        ended_without_advice: Refused with RESOURCE_EXHAUSTED and no `RetryInfo`.
        skipped: Calls of an open loop that did not begin because too many were in flight here.
        errors: A few of the messages.
    """

    codes: dict[str, int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)
    lost_s: list[float] = field(default_factory=list)
    ended_without_advice: int = 0
    skipped: int = 0
    began_s: float = 0.0
    ended_s: float = 0.0
    errors: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All calls."""
        return sum(self.codes.values())

    @property
    def lost(self) -> int:
        """Calls that were not answered OK."""
        return self.total - self.codes.get("OK", 0)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latencies."""
        return round(float(np.percentile(self.latencies_ms, percent)), 2)


class RunningLoad:
    """A load under way in a process of its own."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, json.dumps(asdict(load))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._output = ""
        self._began = threading.Event()
        # Read as it comes: a process that cannot write never ends. And not by `communicate`, which would
        # close the standard input and so end the load.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._began.wait(SPARE_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self._began.set()
        self._output = self._process.stdout.read()

    @property
    def running(self) -> bool:
        """Whether the process still runs."""
        return self._reader.is_alive()

    def report(self) -> Report:
        """Wait for the end, and return what became of the calls."""
        self._reader.join(self._load.seconds + SPARE_S)
        try:
            self._process.wait(SPARE_S if not self.running else 0)
        finally:
            self.kill()
        if self._process.returncode:
            raise RuntimeError(f"a client ended with {self._process.returncode}: {self._load}")
        return Report(**json.loads(self._output))

    def stop(self) -> Report:
        """Let no new call begin after `at_least`, and return what became of the others."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.report()

    def kill(self) -> None:
        """End the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


Make = Callable[[float], Awaitable[object]]


@asynccontextmanager
async def calls_of(load: Load) -> AsyncIterator[list[Make]]:
    """Open the connections, and give what makes a call on each."""
    images = np.random.default_rng(0).integers(0, 255, (load.rows, *load.shape), np.uint8)
    if load.via == "client":
        retry = RetryConfig(retries=load.retries)
        async with AsyncClient(load.target, retry=retry, follow_health=load.follow_health) as client:

            async def encode(timeout_s: float) -> object:
                return await client.encode(images, timeout_s=timeout_s)

            yield [encode]
        return
    request = vae_pb2.EncodeRequest(pixels=pixels(images))
    if load.via == "file":
        request = vae_pb2.EncodeRequest(files=[png(images[0])])
    channels = [_channel(load) for _ in range(load.connections)]
    try:
        for channel in channels:
            await asyncio.wait_for(channel.channel_ready(), 20)
        yield [_stub_call(channel, load, request) for channel in channels]
    finally:
        for channel in channels:
            await channel.close()


def _channel(load: Load) -> grpc.aio.Channel:
    if not load.certificate:
        return grpc.aio.insecure_channel(load.target, OPTIONS)
    authority = grpc.ssl_channel_credentials(Path(load.certificate).read_bytes())
    return grpc.aio.secure_channel(load.target, authority, OPTIONS)


def _stub_call(channel: grpc.aio.Channel, load: Load, request: vae_pb2.EncodeRequest) -> Make:
    if load.via == "health":
        check = health_pb2_grpc.HealthStub(channel).Check
        return lambda timeout_s: check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    stub: vae_pb2_grpc.VaeServiceAsyncStub = vae_pb2_grpc.VaeServiceStub(channel)
    metadata = (("authorization", f"Bearer {load.token}"),) if load.token else ()
    if load.via == "sample":
        draw = vae_pb2.SampleRequest(model=vae_pb2.ModelRef(name=load.model), count=1)
        return lambda timeout_s: stub.Sample(draw, timeout=timeout_s, metadata=metadata)
    return lambda timeout_s: stub.Encode(request, timeout=timeout_s, metadata=metadata)


async def run(load: Load) -> Report:
    """Make the calls of a load."""
    report = Report()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopped.set)
    draw = random.Random(0)
    begun = 0

    async with calls_of(load) as makes:
        print("began", flush=True)
        report.began_s = time.monotonic()
        last_s = report.began_s + load.seconds

        def may_begin() -> bool:
            left = not load.calls or begun < load.calls
            wanted = not stopped.is_set() or begun < load.at_least
            return left and wanted and time.monotonic() < last_s

        async def make_one(due_s: float) -> None:
            nonlocal begun
            make = makes[begun % len(makes)]
            begun += 1
            try:
                await make(draw.uniform(*load.timeout_s))
            except grpc.aio.AioRpcError as error:
                report.codes[error.code().name] += 1
                report.lost_s.append(time.monotonic())
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and not _has_advice(error):
                    report.ended_without_advice += 1
                _note(report, f"{error.code().name}: {error.details()}")
            except ConvvaeError as error:
                report.codes[error.code or type(error).__name__] += 1
                report.lost_s.append(time.monotonic())
                _note(report, str(error))
            else:
                report.codes["OK"] += 1
                now_s = time.monotonic()
                report.latencies_ms.append(round(1e3 * (now_s - due_s), 3))
                report.answered_s.append(round(now_s, 4))

        if load.rate:
            await _begin_at_rate(load, make_one, may_begin, report)
        else:

            async def one_after_another() -> None:
                while may_begin():
                    await make_one(time.monotonic())
                    await asyncio.sleep(load.pause_s)

            await asyncio.gather(*(one_after_another() for _ in range(load.in_flight)))
    report.ended_s = time.monotonic()
    return report


async def _begin_at_rate(
    load: Load,
    make_one: Callable[[float], Awaitable[None]],
    may_begin: Callable[[], bool],
    report: Report,
) -> None:
    flying: set[asyncio.Future[None]] = set()
    due_s = time.monotonic()
    while may_begin():
        due_s += 1 / load.rate
        if (wait_s := due_s - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        if len(flying) >= load.in_flight:
            report.skipped += 1
            # Lets answers in even when the schedule is behind.
            await asyncio.sleep(0)
            continue
        task = asyncio.ensure_future(make_one(due_s))
        flying.add(task)
        task.add_done_callback(flying.discard)
    await asyncio.gather(*flying)


def _has_advice(error: grpc.aio.AioRpcError) -> bool:
    data = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    assert isinstance(data, bytes)
    return any(
        detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
        for detail in status_pb2.Status.FromString(data).details
    )


def _note(report: Report, message: str) -> None:
    if len(report.errors) < 5 and message not in report.errors:
        report.errors.append(message)


if __name__ == "__main__":
    words = json.loads(sys.argv[1])
    print(json.dumps(vars(asyncio.run(run(Load(**words))))))
