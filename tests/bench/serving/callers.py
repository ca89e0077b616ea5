"""The callers of a server, in a process of their own: threads with bare stubs and requests made beforehand.

    python -m bench.serving.callers HOST:PORT MODEL LATENT_DIM

Each line of its input is a question, answered by a line of JSON:

    {"cell": {...}}       connects the callers, makes one call each, and answers {}
    {"seconds": 1.0}      each calls again and again; the answer comes when the last call has ended
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from bench.serving.cell import Cell
from bench.serving.messages import path_of, request_of

OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
CALL_TIMEOUT_S = 30.0
Call = Callable[[], object]


def main() -> None:
    """Answer each line of the input."""
    target, model, latent_dim = sys.argv[1], sys.argv[2], int(sys.argv[3])
    channels: list[grpc.Channel] = []
    calls: list[Call] = []
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any] = {}
        if "cell" in question:
            for channel in channels:
                channel.close()
            cell = Cell(**question["cell"])
            channels = [grpc.insecure_channel(target, OPTIONS) for _ in range(cell.callers)]
            calls = [call_of(channel, cell, model, latent_dim) for channel in channels]
            for call in calls:
                call()
        else:
            answer = make_calls(calls, question["seconds"])
        print(json.dumps(answer), flush=True)


def call_of(channel: grpc.Channel, cell: Cell, model: str, latent_dim: int) -> Call:
    """Return a function that makes the cell's call once. Requests and replies remain bytes."""
    method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path_of(cell))
    request = request_of(cell, model, latent_dim)
    return lambda: method(request, timeout=CALL_TIMEOUT_S)


def make_calls(calls: list[Call], seconds: float) -> dict[str, Any]:
    """Call for `seconds` in a thread for each caller; return the latencies, elapsed seconds and errors."""
    latencies_ms: list[float] = []
    errors: list[str] = []
    started_s, started_cpu_s = time.perf_counter(), time.process_time()

    def repeat(call: Call) -> None:
        begun_s = time.perf_counter()
        while begun_s < started_s + seconds:
            try:
                call()
            except grpc.RpcError as error:
                errors.append(f"{error.code().name}: {error.details()}")
            ended_s = time.perf_counter()
            latencies_ms.append(round(1e3 * (ended_s - begun_s), 3))
            begun_s = ended_s

    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "latencies_ms": latencies_ms,
        "elapsed_s": time.perf_counter() - started_s,
        "caller_cpu_s": time.process_time() - started_cpu_s,
        "errors": errors[:3],
        "failed": len(errors),
    }


if __name__ == "__main__":
    main()
