"""Readers of the metrics page that say nothing: results/FRONT/page_readers.json.

    python tests/attack/page_readers.py [--front grpcio|native]

The server may open 1,024 files. More readers connect, half of them with a request that does not end.
"""

import resource
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import OPTIONS
from attack.target import Outcome, Target, attacked
from convvae.v1 import vae_pb2, vae_pb2_grpc
from support.figure import measure_to_files
from support.tiny_bundle import publish_tiny

READERS = 1100
NUM_FILES = 1024
MOST_THREADS = 40
MOST_PAGE_S = 15.0


def open_readers(address: str, readers: int) -> list[socket.socket]:
    """Connect so many readers, and let every second one begin a request."""
    host, _, port = address.rpartition(":")
    opened: list[socket.socket] = []
    for number in range(readers):
        try:
            opened.append(socket.create_connection((host, int(port)), timeout=1.0))
            if number % 2:
                opened[-1].sendall(b"GET /metrics HTTP/1.1\r\nx: ")
        except OSError:
            continue
    return opened


def hold_readers(address: str, target: Target, readers: int, hold_s: float) -> Outcome:
    """Hold readers, and look at the threads, the files and new callers meanwhile."""
    opened = open_readers(target.server.metrics_target, readers)
    try:
        time.sleep(hold_s)
        process = Path(f"/proc/{target.server.process.pid}")
        facts = {
            "readers": len(opened),
            "threads": len(list((process / "task").iterdir())),
            "files": len(list((process / "fd").iterdir())),
            "a_new_caller": _status_of_a_new_caller(address),
        }
        return Outcome(facts=facts)
    finally:
        for reader in opened:
            reader.close()


def odd_requests(_address: str, page_address: str) -> Outcome:
    """Send requests that are no requests, and readers that leave at once."""
    outcome = Outcome()
    for request in (
        b"GET /../../etc/passwd HTTP/1.0\r\n\r\n",
        b"POST /metrics HTTP/1.0\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET " + b"/" * 70_000 + b" HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 300 + b"\r\n",
        b"GET /metrics?name[]=%ff%00 HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\nAccept: \x1b[31m\n\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n\r\n",
    ):
        for reader in open_readers(page_address, 1):
            with reader:
                reader.sendall(request)
        outcome.sent_bytes += len(request)
    return outcome


def _status_of_a_new_caller(address: str) -> str:
    with grpc.insecure_channel(address, OPTIONS) as channel:
        try:
            vae_pb2_grpc.VaeServiceStub(channel).Sample(vae_pb2.SampleRequest(count=1), timeout=5)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def measure(front: str, readers: int = READERS, hold_s: float = 2.0) -> dict[str, Any]:
    """Return the figures of so many readers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with attacked(front, Path(folder)) as target:
            pid = target.server.process.pid
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (NUM_FILES, NUM_FILES))
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            held = target.observe("silent readers", hold_readers, target, readers, hold_s)
            began_s = time.monotonic()
            page = _page(target)
            page_s = round(time.monotonic() - began_s, 2)
            target.observe("odd requests", odd_requests, target.server.metrics_target, repeat_s=1.0)
            page = page and _page(target)
            result = target.finish()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    result["met"] |= {
        f"there are at most {MOST_THREADS} threads": held.get("threads", NUM_FILES) <= MOST_THREADS,
        "a new caller is answered": held.get("a_new_caller") == "OK",
        "the page is there when the readers have gone": page and page_s <= MOST_PAGE_S,
        "nothing but JSON is on stderr": not result["lines_that_are_no_json"],
    }
    return {"figure": "silent readers of the metrics page", "page_s": page_s, **result}


def _page(target: Target) -> bool:
    try:
        return "convvae_calls_total" in target.server.metrics_page()
    except OSError:
        return False


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
