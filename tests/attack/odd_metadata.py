"""Metadata and headers of every odd kind, and the log that they cause: results/FRONT/odd_metadata.json.

    python tests/attack/odd_metadata.py [--front grpcio|native]

The server has a token file. Half of the calls have the token, so that it could get into the log.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import ENCODE
from attack.target import Outcome, attacked
from support.figure import measure_to_files
from support.raw_connection import RawConnection
from support.raw_http2 import END_HEADERS, HEADERS, frame, header_block
from support.tiny_bundle import publish_tiny

TOKEN = "s3cr3t-t0ken"
MOST_LOG_SHARE = 2.0
CALLS = 100
DECODE = "/convvae.v1.VaeService/Decode"

PLAIN = {
    ":method": "POST",
    ":scheme": "http",
    ":path": ENCODE,
    ":authority": "localhost",
    "te": "trailers",
    "content-type": "application/grpc",
    "authorization": f"Bearer {TOKEN}",
}


def kinds() -> dict[str, list[tuple[str, str]]]:
    """Return headers by what is odd about them."""

    def with_(**words: str) -> list[tuple[str, str]]:
        return list((PLAIN | {key.replace("_", "-"): value for key, value in words.items()}).items())

    plain = list(PLAIN.items())
    return {
        "200 values that are not ASCII": plain + [(f"x{number}", "\xe9") for number in range(200)],
        "one long value that is not ASCII": with_(x="\xe9" * 15_000),
        "a token that is not ASCII": with_(authorization=f"Bearer {TOKEN}\xe9"),
        "a token with a control character": with_(authorization=f"Bearer {TOKEN}\x1b[31m"),
        "two tokens": [*plain, ("authorization", f"Bearer {TOKEN}")],
        "no token": [pair for pair in plain if pair[0] != "authorization"],
        "an id that is a line of the log": with_(x_request_id='a\n{"level": "error"}'),
        "two ids": [*plain, ("x-request-id", "one"), ("x-request-id", "two")],
        "a trace that is none": with_(traceparent="\xe9" * 500),
        "binary metadata that is not base64": [*plain, ("x-bin", "\xe9=?" * 300)],
        "a key with a capital": [*plain, ("X-Capital", "1")],
        "an empty key": [*plain, ("", "1")],
        "a timeout that is none": with_(grpc_timeout="soon"),
        "a negative timeout": with_(grpc_timeout="-1S"),
        "a timeout of many digits": with_(grpc_timeout="9" * 5000 + "H"),
        "no te": [pair for pair in plain if pair[0] != "te"],
        "another content type": with_(content_type="text/html; \x1b[31m"),
        "an unknown encoding": with_(grpc_encoding="\xe9" * 200),
        "an authority of 15 kB": [(key, "a" * 15_000 if key == ":authority" else v) for key, v in plain],
        "a path of 15 kB": [(key, "/" + "p" * 15_000 if key == ":path" else v) for key, v in plain],
        "a path with control characters": [(k, "/a\n\x1b[31m/b" if k == ":path" else v) for k, v in plain],
        "a path that is not ASCII": [(key, "/\xe9/\xe9" if key == ":path" else v) for key, v in plain],
        "an agent of 15 kB": with_(user_agent="a" * 15_000),
    }


def send_odd(address: str, headers: list[tuple[str, str]], calls: int) -> Outcome:
    """Begin calls with these headers, each with a request without bytes."""
    block = b"".join(header_block({key: value}) for key, value in headers)
    message = frame(0, 1, 1, bytes(5))
    outcome = Outcome(facts={"connections": 0})
    left = calls
    while left > 0:
        outcome.facts["connections"] += 1
        connection = RawConnection(address)
        stream = 1
        while left > 0 and not connection.closed:
            connection.send(frame(HEADERS, END_HEADERS, stream, block))
            connection.send(message[:5] + stream.to_bytes(4, "big") + message[9:])
            connection.read(0.0)
            stream, left = stream + 2, left - 1
        connection.read_until_ended(calls, 0.2)
        outcome.sent_bytes += connection.sent_bytes
        connection.close()
    return outcome


def measure(front: str, calls: int = CALLS) -> dict[str, Any]:
    """Return the figures of so many calls of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        models, tokens = Path(folder) / "models", Path(folder) / "tokens"
        publish_tiny(models)
        tokens.write_text(f"{TOKEN}\n")
        with attacked(front, models, "--token-file", str(tokens), token=TOKEN) as target:
            for name, headers in kinds().items():
                found = target.observe(name, send_odd, headers, calls)
                # Bytes per byte sent; a call with short headers may have its line.
                found["log_share"] = round(found["log_bytes"] / max(found["sent_bytes"], 1), 2)
            result = target.finish()
            lines, noise = list(target.server.lines), list(target.server.noise)
    shares = {name: found["log_share"] for name, found in result["attacks"].items()}
    text = "".join([*map(str, lines), *noise])
    result["met"] |= {
        "the log grows by at most 2 bytes per byte sent": max(shares.values()) <= MOST_LOG_SHARE,
        "no token is in the log": TOKEN not in text,
        "every line of the log is JSON": not noise,
        "no line is an error": not any(line.get("level") == "error" for line in lines),
    }
    result["errors"] = [line for line in lines if line.get("level") == "error"][:3]
    return {"figure": "odd metadata and the log", "log_bytes_per_byte_sent": shares, **result}


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
