"""A drain while ten peers are connected that do nothing: results/FRONT/drain_peers.json.

    python tests/attack/drain_peers.py [--front grpcio|native]

No call is in flight. The grace is 8 s, and no peer may cost it.
"""

import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import ENCODE, SAMPLE, STREAM_INFER
from convvae.v1 import vae_pb2
from support.figure import measure_to_files
from support.raw_connection import RawConnection
from support.raw_http2 import grpc_message
from support.serving import serving
from support.tiny_bundle import publish_tiny

GRACE_S = "8"
MOST_S = 1.0
PEERS = 10
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
SAMPLE_ONE = grpc_message(vae_pb2.SampleRequest(count=1).SerializeToString())


class Peer(Protocol):
    """A connection that can be closed."""

    def close(self) -> None:
        """Close it."""


def silent(address: str) -> Peer:
    """Connect, and send nothing."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def greeted(address: str) -> Peer:
    """Begin HTTP/2, and make no call."""
    connection = RawConnection(address)
    connection.read(0.2)
    return connection


def answered(address: str) -> Peer:
    """Make a call, and stay connected."""
    connection = RawConnection(address)
    connection.send_data(connection.begin(SAMPLE), SAMPLE_ONE, ends=True)
    connection.read_until_ended(1, 5.0)
    return connection


def unread(address: str) -> Peer:
    """Make a call, and read no reply."""
    connection = RawConnection(address, {4: 0})
    connection.send_data(connection.begin(SAMPLE), SAMPLE_ONE, ends=True)
    return connection


def begun(method: str, data: bytes = b"") -> Callable[[str], Peer]:
    """Return a function that begins a call, sends some data of it, and stays connected."""

    def begin(address: str) -> Peer:
        connection = RawConnection(address)
        stream = connection.begin(method)
        if data:
            connection.send_data(stream, data)
        connection.read(0.1)
        return connection

    return begin


def kinds() -> dict[str, Callable[[str], Peer]]:
    """Return the kinds of peers by name."""
    return {
        "silent": silent,
        "begun HTTP/2": greeted,
        "a call that is answered": answered,
        "a reply that is not read": unread,
        "a watch of health": begun(WATCH, grpc_message(b"")),
        "a call without a request": begun(ENCODE),
        "half a message": begun(ENCODE, b"\0\0\0\1\0half"),
        "an open stream": begun(STREAM_INFER),
        "an open reflection": begun(REFLECTION, grpc_message(b"\x3a\0")),
    }


def drain_s(front: str, models: Path, connect: Callable[[str], Peer] | None, peers: int) -> tuple[float, int]:
    """Return the seconds from SIGTERM to the end beside so many peers, and the exit code."""
    opened: list[Peer] = []
    with serving(models, "--front", front, "--grace-s", GRACE_S) as server:
        try:
            if connect is not None:
                opened += [connect(server.target) for _ in range(peers)]
            time.sleep(0.3)
            began_s = time.monotonic()
            exit_code = server.stop()
            return round(time.monotonic() - began_s, 2), exit_code
        finally:
            for peer in opened:
                peer.close()


def measure(front: str, peers: int = PEERS) -> dict[str, Any]:
    """Return the figures of so many peers of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        alone_s, _ = drain_s(front, Path(folder), None, 0)
        found = {name: drain_s(front, Path(folder), connect, peers) for name, connect in kinds().items()}
    drains_s = {name: seconds for name, (seconds, _) in found.items()}
    return {
        "figure": "seconds from SIGTERM to the end beside peers that do nothing",
        "met": {
            "no peer costs more than 1 s": max(drains_s.values()) <= alone_s + MOST_S,
            "each drain is whole": not any(code for _, code in found.values()),
        },
        "peers": peers,
        "grace_s": float(GRACE_S),
        "alone_s": alone_s,
        "drain_s": drains_s,
        "exit_codes": {name: code for name, (_, code) in found.items()},
    }


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
