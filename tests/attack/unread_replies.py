"""Replies that nobody reads: results/FRONT/unread_replies.json.

    python tests/attack/unread_replies.py [--front grpcio|native]

A request of a few bytes has a reply of 13 MB, and the window of the caller is 0. An idle server is one that
has answered such a call.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import SAMPLE, send
from attack.target import Outcome, attacked
from convvae.v1 import vae_pb2
from convvae_service.bundle import ImageShape
from support.figure import measure_to_files
from support.raw_connection import RawConnection
from support.raw_http2 import grpc_message
from support.tiny_bundle import publish_tiny

INITIAL_WINDOW_ID = 4
WATCH = "/grpc.health.v1.Health/Watch"
LISTING = "/convvae.v1.VaeService/ListModels"


def leave_unread(
    address: str, method: str, data: bytes, *, connections: int, calls: int, hold_s: float, gap_s: float = 0.0
) -> Outcome:
    """Make calls on each of so many connections, read no reply, and hold the connections."""
    opened = [RawConnection(address, {INITIAL_WINDOW_ID: 0}) for _ in range(connections)]
    try:
        for _ in range(calls):
            for connection in opened:
                connection.send_data(connection.begin(method), grpc_message(data), ends=True)
            time.sleep(gap_s)
        end_s = time.monotonic() + hold_s
        while time.monotonic() < end_s:
            for connection in opened:
                connection.read(0.01)
        return Outcome(sent_bytes=sum(each.sent_bytes for each in opened))
    finally:
        for connection in opened:
            connection.close()


def measure(front: str, hold_s: float = 3.0, rows: int = 1024, crowd: int = 100) -> dict[str, Any]:
    """Return the figures of replies of so many rows that wait for so many seconds.

    The lists and watches are `crowd` on each of as many connections.
    """
    sample = vae_pb2.SampleRequest(count=rows).SerializeToString()
    cases: dict[str, dict[str, Any]] = {
        "40 large replies on one connection": {"connections": 1, "calls": 40, "gap_s": 0.02},
        "8 large replies on each of 10 connections": {"connections": 10, "calls": 8, "gap_s": 0.1},
        f"a large reply on each of {crowd} connections": {"connections": crowd, "calls": 1},
    }
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder), shape=ImageShape(height=64, width=64, channels=3))
        with attacked(front, Path(folder)) as target:
            # The arena of the model keeps the memory of its largest batch, whether the reply is read or not.
            read = send(target.address, SAMPLE, sample)
            assert read.codes["OK"], read
            target.note_idle()
            for name, words in cases.items():
                target.observe(name, leave_unread, SAMPLE, sample, hold_s=hold_s, **words)
            for name, method in (("lists of models", LISTING), ("watches of health", WATCH)):
                target.observe(
                    f"{crowd} {name} on each of {crowd} connections",
                    leave_unread,
                    method,
                    b"",
                    connections=crowd,
                    calls=crowd,
                    hold_s=hold_s,
                )
            return {"figure": "replies that nobody reads", "rows": rows, **target.finish()}


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
