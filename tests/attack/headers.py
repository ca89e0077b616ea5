"""Headers that are small on the wire and large in memory, before any token: results/FRONT/headers.json.

    python tests/attack/headers.py [--front grpcio|native]

A byte of a header block can stand for 3.9 kB that an earlier header put into the table (RFC 7541, 6.1).
The server has a token file, and the attack has no token. It acknowledges the server's settings, or breaks the
protocol and does not.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import ENCODE
from attack.target import CAP_MB, Outcome, Target, attacked
from support.figure import measure_to_files
from support.raw_connection import RawConnection
from support.raw_http2 import HEADERS, frame, grpc_headers, header_block
from support.tiny_bundle import publish_tiny

TOKEN = "s3cr3t"
MOST_MB_OF_A_CONNECTION = 64.0
MOST_MB = 400.0
CONTINUATION = 9
ONE, FOUR = "references, 1 connection", "references, 4 connections"
# A literal that goes into the table, and the newest entry of the table.
INDEXED, NEWEST = 0x40, b"\xbe"
ENTRY_BYTES = 3900


def entry(num_bytes: int) -> bytes:
    """Return a header with a value of so many bytes that goes into the table."""
    plain = header_block({"x-a": "v" * num_bytes})
    return bytes([INDEXED]) + plain[1:]


def refer(
    address: str,
    seconds: float,
    value_bytes: int,
    references: int = 12_000,
    *,
    reads: bool = True,
    acknowledges: bool = False,
) -> Outcome:
    """Begin calls on one connection, each of which refers to one entry of the table again and again."""
    connection = RawConnection(address, acknowledges=acknowledges)
    try:
        end_s = time.monotonic() + seconds
        calls = 0
        while time.monotonic() < end_s and not connection.closed:
            block = (entry(value_bytes) if calls == 0 else b"") + NEWEST * references
            connection.begin(ENCODE, block=block)
            if reads:
                connection.read(0.0)
            calls += 1
        return Outcome(sent_bytes=connection.sent_bytes, facts={"calls": calls, "ended": connection.ended})
    finally:
        connection.close()


def continue_for_ever(address: str, seconds: float) -> Outcome:
    """Send one call whose headers never end."""
    connection = RawConnection(address, acknowledges=False)
    try:
        end_s = time.monotonic() + seconds
        connection.send(frame(HEADERS, 0, 1, grpc_headers(ENCODE.removeprefix("/")) + entry(ENTRY_BYTES)))
        while time.monotonic() < end_s and not connection.closed:
            connection.send(frame(CONTINUATION, 0, 1, NEWEST * 16_000))
            connection.read(0.0)
        return Outcome(sent_bytes=connection.sent_bytes)
    finally:
        connection.close()


def half_open(address: str, connections: int, calls: int, value_bytes: int, hold_s: float) -> Outcome:
    """Begin calls on many connections, send nothing more, and hold them."""
    block = header_block({"x-a": "v" * value_bytes})
    opened: list[RawConnection] = []
    try:
        for _ in range(connections):
            opened.append(RawConnection(address))
            for _ in range(calls):
                opened[-1].begin(ENCODE, block=block)
            opened[-1].read(0.0)
        end_s = time.monotonic() + hold_s
        while time.monotonic() < end_s:
            for connection in opened:
                connection.read(0.0)
            time.sleep(0.05)
        refused = sum(connection.closed for connection in opened)
        return Outcome(
            sent_bytes=sum(connection.sent_bytes for connection in opened),
            facts={"refused_connections": refused},
        )
    except OSError:
        return Outcome(facts={"refused_connections": connections - len(opened)})
    finally:
        for connection in opened:
            connection.close()


def measure(front: str, seconds: float = 4.0, connections: int = 200) -> dict[str, Any]:
    """Return the figures of attacks of so many seconds, and of half-open calls on so many connections."""
    with tempfile.TemporaryDirectory() as folder:
        models, tokens = Path(folder) / "models", Path(folder) / "tokens"
        publish_tiny(models)
        tokens.write_text(f"{TOKEN}\n")
        with attacked(front, models, "--token-file", str(tokens), token=TOKEN) as target:
            _attack_all(target, seconds, connections)
            result = target.finish()
    found = result["attacks"]
    grown_mb = {name: each.get("peak_mb", CAP_MB) - result["idle_mb"] for name, each in found.items()}
    result["met"] |= {
        "a connection takes at most 64 MB before it has a token": grown_mb[ONE] <= MOST_MB_OF_A_CONNECTION,
        "all take at most 400 MB": max(grown_mb.values()) <= MOST_MB,
    }
    return {"figure": "headers before any token", "grown_mb": grown_mb, **result}


def _attack_all(target: Target, seconds: float, connections: int) -> None:
    target.observe(ONE, refer, seconds, ENTRY_BYTES)
    target.observe(FOUR, refer, seconds, ENTRY_BYTES, callers=4)
    target.observe("references, settings acknowledged", refer, seconds, ENTRY_BYTES, acknowledges=True)
    target.observe("references, no answer read", refer, seconds, ENTRY_BYTES, reads=False)
    target.observe("references to short headers", refer, seconds, 1)
    target.observe("few references a call", refer, seconds, ENTRY_BYTES, 3)
    target.observe("headers without an end", continue_for_ever, seconds)
    for calls, value_bytes in ((1, 10), (100, 10), (20, 15_000)):
        name = f"{calls} half-open calls of {value_bytes} B on each of {connections} connections"
        target.observe(name, half_open, connections, calls, value_bytes, seconds / 2)


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
