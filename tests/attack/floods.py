"""Frames of HTTP/2 that cost the caller nothing: results/FRONT/floods.json.

    python tests/attack/floods.py [--front grpcio|native]

One connection after another sends such frames as fast as it can; the server may end it.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import ENCODE
from attack.target import Outcome, attacked
from support.figure import measure_to_files
from support.raw_connection import RawConnection
from support.raw_http2 import DATA, HEADERS, RST_STREAM, SETTINGS, frame, grpc_headers
from support.tiny_bundle import publish_tiny

PRIORITY, PING, WINDOW_UPDATE, CONTINUATION, UNKNOWN = 2, 6, 8, 9, 0xB0
CANCEL = (8).to_bytes(4, "big")
AT_ONCE = 100
HEADER = grpc_headers(ENCODE.removeprefix("/"))


def floods() -> dict[str, Callable[[int], bytes]]:
    """Return by name the frames of each round; the argument is the number of the round."""

    def reset(turn: int) -> bytes:
        streams = range(2 * AT_ONCE * turn + 1, 2 * AT_ONCE * (turn + 1), 2)
        return b"".join(
            frame(HEADERS, 4, each, HEADER) + frame(RST_STREAM, 0, each, CANCEL) for each in streams
        )

    def opened(turn: int) -> bytes:
        streams = range(2 * AT_ONCE * turn + 1, 2 * AT_ONCE * (turn + 1), 2)
        return b"".join(frame(HEADERS, 4, each, HEADER) for each in streams)

    return {
        "calls that are reset at once": reset,
        "calls above the limit": opened,
        "pings": lambda _: frame(PING, 0, 0, bytes(8)) * AT_ONCE,
        "settings": lambda _: frame(SETTINGS, 0, 0, bytes([0, 4, 0, 0, 255, 255])) * AT_ONCE,
        "priorities": lambda turn: frame(PRIORITY, 0, 2 * turn + 1, bytes([0, 0, 0, 0, 1])) * AT_ONCE,
        "windows": lambda _: frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big")) * AT_ONCE,
        "empty data": lambda turn: (
            (frame(HEADERS, 4, 1, HEADER) if turn == 0 else b"") + frame(DATA, 0, 1, b"") * AT_ONCE
        ),
        "headers that go on and on": lambda turn: (
            (frame(HEADERS, 0, 1, HEADER) if turn == 0 else b"") + frame(CONTINUATION, 0, 1, b"") * AT_ONCE
        ),
        "unknown frames": lambda _: frame(UNKNOWN, 0, 0, bytes(1000)) * AT_ONCE,
        "no HTTP/2": lambda _: b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * AT_ONCE,
    }


def flood(address: str, make: Callable[[int], bytes], seconds: float) -> Outcome:
    """Send frames for so many seconds, on a new connection whenever the server ends one."""
    end_s = time.monotonic() + seconds
    outcome = Outcome(facts={"connections": 0})
    while time.monotonic() < end_s:
        outcome.facts["connections"] += 1
        try:
            connection = RawConnection(address)
        except OSError:
            time.sleep(0.01)
            continue
        turn = 0
        while time.monotonic() < end_s and not connection.closed:
            connection.send(make(turn))
            connection.read(0.0)
            turn += 1
        outcome.sent_bytes += connection.sent_bytes
        connection.close()
    return outcome


def measure(front: str, seconds: float = 2.5) -> dict[str, Any]:
    """Return the figures of floods of so many seconds each."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with attacked(front, Path(folder)) as target:
            for name, make in floods().items():
                target.observe(name, flood, make, seconds)
            return {"figure": "floods of frames", **target.finish()}


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
