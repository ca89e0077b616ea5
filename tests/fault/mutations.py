"""Requests that are nearly right, to both protocols: results/FRONT/mutations.json.

    python tests/fault/mutations.py [--front grpcio|native]

200,000 requests, half of them native and half of the Open Inference Protocol, from two processes. Each must
be answered within its deadline, by a status that says what is wrong with it; the server's memory is read with
nothing pending, after the first half and after the second.
"""

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))
from convvae.v1 import vae_pb2
from fault.mutate import NATIVE, OPEN_INFERENCE, mutated
from support.figure import measure_to_files
from support.observed import ObservedServer, observed
from support.tiny_bundle import publish_tiny
from support.wire import TIMEOUT_S, stub_of

IN_FLIGHT = 16
DEADLINE_S = 30.0
MOST_SECONDS = 500.0
MOST_GROWTH_KIB = 1024
# The service gives freed memory back every 10 s.
SETTLE_S = 12.0
# Not the caller's fault, or no answer.
# A request's own parameter `timeout` may be too short for it: that DEADLINE_EXCEEDED is what it asked for.
OWN_TIMEOUT = "the request took longer than its parameter 'timeout'"
# The words of gRPC's client, not of the server, when a stream ends while it sends.
ENDED_WHILE_SENDING = "Internal error from Core"
FORBIDDEN = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "DATA_LOSS", "ABORTED")
PROTOCOLS = {"native": NATIVE, "open_inference": OPEN_INFERENCE}


def measure(front: str, requests: int = 200_000, settle_s: float = SETTLE_S) -> dict[str, Any]:
    """Return the figures of so many requests."""
    probe = vae_pb2.SampleRequest(count=2, seed=5)
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with (
            observed(ObservedServer, Path(folder), "--front", front) as server,
            stub_of(server.target) as stub,
        ):
            expected = stub.Sample(probe, timeout=TIMEOUT_S)
            before_kib = server.resident_kib()
            halves, resident_kib = [], []
            for half in (0, 1):
                halves.append(send(server.target, requests // 4, seed=2 * half))
                server.wait_idle()
                time.sleep(settle_s)
                resident_kib.append(server.resident_kib())
            sound = stub.Sample(probe, timeout=TIMEOUT_S) == expected
            pending = server.wait_idle()
            faults = server.faults()
            errors = [line for line in server.lines if line.get("level") == "error"]
            noise = list(server.noise)
            exit_code = server.stop()
    codes: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for reports in halves:
        for report in reports:
            codes.update(report["codes"])
            for code, found in report["examples"].items():
                examples.setdefault(code, []).extend(found)
    growth_kib = resident_kib[1] - resident_kib[0]
    return {
        "figure": "mutated requests to both protocols",
        "met": {
            "all are answered": sum(codes.values()) == requests // 4 * 4,
            "no code of a fault of the server": not faults and not any(codes[code] for code in FORBIDDEN),
            "no error in the log": not errors and not noise,
            "the server answers as before, and drains": sound and exit_code == 0,
            "nothing stays pending": not any(pending.values()),
            "memory grows under 1 MiB in the second half": growth_kib < MOST_GROWTH_KIB,
        },
        "requests": sum(codes.values()),
        "codes": dict(codes.most_common()),
        "faults_that_the_server_counted": faults,
        "forbidden_examples": {code: examples[code][:5] for code in FORBIDDEN if code in examples},
        "errors_in_the_log": len(errors),
        "first_errors": errors[:3],
        "noise": noise[:20],
        "resident_kib": {"before": before_kib, "half": resident_kib[0], "end": resident_kib[1]},
        "growth_of_the_second_half_kib": growth_kib,
        "target_growth_kib": MOST_GROWTH_KIB,
    }


def send(target: str, requests: int, *, seed: int) -> list[dict[str, Any]]:
    """Send so many requests of each protocol, each from a process of its own, and return their reports."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--send", target, protocol, str(requests), str(seed + index)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for index, protocol in enumerate(PROTOCOLS)
    ]
    try:
        return [json.loads(process.communicate(timeout=MOST_SECONDS)[0]) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


async def send_all(target: str, protocol: str, requests: int, seed: int) -> dict[str, Any]:
    """Send requests, and return how many ended with which code."""
    draw = random.Random(seed)
    codes: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    left = iter(range(requests))
    async with grpc.aio.insecure_channel(target, [("grpc.enable_retries", 0)]) as channel:
        # Without serialisers: the bytes go as they are.
        unary: Any = channel.unary_unary
        stream: Any = channel.stream_stream

        async def send_one(name: str, data: bytes) -> None:
            if name.endswith("/ModelStreamInfer"):
                call: Any = stream(name)(iter((data, data)), timeout=DEADLINE_S)
                async for _ in call:
                    pass
                code = await call.code()
            else:
                await unary(name)(data, timeout=DEADLINE_S)
                code = grpc.StatusCode.OK
            codes[code.name] += 1

        async def one_after_another() -> None:
            for _ in left:
                name, data = mutated(draw, PROTOCOLS[protocol])
                try:
                    await send_one(name, data)
                except grpc.aio.AioRpcError as error:
                    details = error.details() or ""
                    if OWN_TIMEOUT in details:
                        codes["OWN_TIMEOUT"] += 1
                        continue
                    if details == ENDED_WHILE_SENDING:
                        codes["ENDED_WHILE_SENDING"] += 1
                        continue
                    codes[error.code().name] += 1
                    found = examples.setdefault(error.code().name, [])
                    if len(found) < 5:
                        found.append(f"{name} {data[:200].hex()}: {error.details()}")

        await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
    return {"codes": codes, "examples": examples}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--send"]:
        target, protocol, requests, seed = sys.argv[2:]
        print(json.dumps(asyncio.run(send_all(target, protocol, int(requests), int(seed)))))
    else:
        measure_to_files(__file__, __doc__, measure)
