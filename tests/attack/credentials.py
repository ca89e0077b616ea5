"""Tokens that are replaced in every way that operators use: results/FRONT/credentials.json.

    python tests/attack/credentials.py [--front grpcio|native]

The figure is the time until the new token is accepted and the old one refused. A token that is half written
must never be accepted.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import OPTIONS
from convvae.v1 import vae_pb2, vae_pb2_grpc
from support.figure import measure_to_files
from support.serving import serving
from support.tiny_bundle import publish_tiny

MOST_S = 5.0
PART_S = 1.0


def by_rename(tokens: Path, token: str) -> None:
    """Write another file and rename it."""
    other = tokens.with_name("other")
    other.write_text(f"{token}\n")
    other.rename(tokens)


def in_place(tokens: Path, token: str) -> None:
    """Write the file in place."""
    tokens.write_text(f"{token}\n")


def in_place_with_the_same_stamp(tokens: Path, token: str) -> None:
    """Write the file in place, and set its time back."""
    before = tokens.stat()
    tokens.write_text(f"{token}\n")
    os.utime(tokens, ns=(before.st_atime_ns, before.st_mtime_ns))


def by_a_link(tokens: Path, token: str) -> None:
    """Let a link show a new folder, as mounted secrets do."""
    folder = tokens.with_name(f"data-{token}")
    folder.mkdir()
    (folder / "tokens").write_text(f"{token}\n")
    link = tokens.with_name("link")
    link.symlink_to(folder / "tokens")
    link.rename(tokens)


def after_a_gap(tokens: Path, token: str) -> None:
    """Remove the file, and make it again a second later."""
    tokens.unlink()
    time.sleep(PART_S)
    tokens.write_text(f"{token}\n")


def after_a_link_to_nothing(tokens: Path, token: str) -> None:
    """Let a link show nothing for a second, and then the file."""
    later = tokens.with_name(f"later-{token}")
    link = tokens.with_name("link")
    link.symlink_to(later)
    link.rename(tokens)
    time.sleep(PART_S)
    later.write_text(f"{token}\n")


KINDS: dict[str, Callable[[Path, str], None]] = {
    "renamed": by_rename,
    "in place": in_place,
    "in place, with the same time": in_place_with_the_same_stamp,
    "a link to another folder": by_a_link,
    "removed and made again": after_a_gap,
    "a link to nothing, then the file": after_a_link_to_nothing,
}


def is_accepted(address: str, token: str) -> bool:
    """Return whether a call with this token is answered."""
    with grpc.insecure_channel(address, OPTIONS) as channel:
        call = vae_pb2_grpc.VaeServiceStub(channel).Sample
        metadata = (("authorization", f"Bearer {token}"),)
        try:
            call(vae_pb2.SampleRequest(count=1), timeout=5, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise
        return True


def measure(front: str, kinds: int = len(KINDS)) -> dict[str, Any]:
    """Return the figures of so many kinds, one after another."""
    seconds: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        models, tokens = Path(folder) / "models", Path(folder) / "tokens"
        publish_tiny(models)
        tokens.write_text("token-0\n")
        with serving(models, "--front", front, "--token-file", str(tokens)) as server:
            for number, (name, replace) in enumerate(list(KINDS.items())[:kinds]):
                old, new = f"token-{number}", f"token-{number + 1}"
                replace(tokens, new)
                seconds[name] = _seconds_until(server.target, old, new)
            part, whole = "half-a-t", "half-a-token"
            with tokens.open("w") as file:
                file.write(part)
                file.flush()
                time.sleep(PART_S)
                is_part_accepted = is_accepted(server.target, part)
                file.write(f"{whole.removeprefix(part)}\n")
            seconds["in two parts"] = _seconds_until(server.target, part, whole)
            errors = [line for line in server.lines if line.get("level") == "error"]
            shown = [token for token in ("token-1", whole) if token in str(server.lines)]
    return {
        "figure": "seconds until a new token is accepted and the old one refused",
        "met": {
            "each is within 5 s": all(each is not None and each <= MOST_S for each in seconds.values()),
            "half a token is never accepted": not is_part_accepted,
            "no token is in the log": not shown,
        },
        "seconds": seconds,
        "errors": errors[:5],
    }


def _seconds_until(address: str, old: str, new: str) -> float | None:
    """Return the seconds until `new` is accepted and `old` refused, None if that takes too long."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + 2 * MOST_S:
        if is_accepted(address, new) and not is_accepted(address, old):
            return round(time.monotonic() - began_s, 2)
        time.sleep(0.1)
    return None


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
