"""The program of `DecodingChild`: it reads files from a pipe, and answers with their pixels."""

import json
import re
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.child import PIXELS, REASON
from convvae_service.images.decode import decode_file, most_decoding_bytes
from convvae_service.images.header import InvalidImage
from convvae_service.images.own_process import READY

__all__ = ["main"]

# Beside the decoder's memory: what allocators keep.
_SPARE_BYTES = 64 << 20


def main() -> None:
    """Answer files until the parent closes its end of the pipe."""
    pipe = Connection(int(sys.argv[1]))
    own_bytes = _data_bytes()
    pipe.send_bytes(READY)
    while True:
        try:
            rule, data = json.loads(pipe.recv_bytes()), pipe.recv_bytes()
        except (EOFError, OSError):
            return
        pipe.send_bytes(_answer(rule, data, own_bytes))


def _answer(rule: dict[str, Any], data: bytes, own_bytes: int) -> bytes:
    """Return the reply for one file, decoded with a limit of memory."""
    max_pixels = rule["max_pixels"]
    # The decoder copies the file up to three times.
    most = own_bytes + 4 * len(data) + most_decoding_bytes(max_pixels) + _SPARE_BYTES
    _limit_data(most)
    try:
        pixels = decode_file(
            data, shape=ImageShape(**rule["shape"]), resize=Resize(**rule["resize"]), max_pixels=max_pixels
        )
    except InvalidImage as error:
        return REASON + str(error).encode()
    except MemoryError:
        return REASON + b"takes more memory to decode than the limit allows: save it again"
    finally:
        _limit_data(resource.RLIM_INFINITY)  # the next file may be larger
    return PIXELS + pixels.tobytes()


def _limit_data(num_bytes: int) -> None:
    """Limit the process's data to a number of bytes, or to the limit of its parent if that is lower."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [bound for bound in (num_bytes, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds, default=resource.RLIM_INFINITY), hard))


def _data_bytes() -> int:
    """Return the bytes of data that the process has now, as RLIMIT_DATA counts them."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""  # /proc is not mounted
    found = re.search(r"VmData:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 1 << 30


if __name__ == "__main__":
    main()
