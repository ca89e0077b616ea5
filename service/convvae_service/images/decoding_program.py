"""The program of `DecodingProcesses`: it decodes files in the memory that it shares with its parent."""

import json
import mmap
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.file_decoder import decode_here
from convvae_service.images.header import InvalidImage, TooManyPixels
from convvae_service.images.model_input import ModelInput
from convvae_service.images.own_process import READY

__all__ = ["main"]


def main() -> None:
    """Answer requests until the parent closes its end of the pipe."""
    pipe, memory = Connection(int(sys.argv[1])), int(sys.argv[2])
    pipe.send_bytes(READY)
    mapped: mmap.mmap | None = None
    while True:
        try:
            request = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        answer = None  # there is not enough memory
        with suppress(MemoryError):
            mapped = _map(mapped, memory, request["memory_bytes"])
            errors = _decode(request, mapped).items()
            answer = {index: (isinstance(error, TooManyPixels), str(error)) for index, error in errors}
        try:
            pipe.send_bytes(json.dumps(answer).encode())
        except OSError:
            return


def _map(mapped: mmap.mmap | None, memory: int, num_bytes: int) -> mmap.mmap:
    """Return the memory as it is mapped, or map it anew if its size has changed."""
    if mapped is not None and len(mapped) == num_bytes:
        return mapped
    try:
        return mmap.mmap(memory, num_bytes)
    except OSError as error:
        raise MemoryError(str(error)) from None


def _decode(request: dict[str, Any], mapped: mmap.mmap) -> Mapping[int, InvalidImage]:
    """Decode the files at the start of the memory, and put the pixels behind them."""
    sizes = request["sizes"]
    model_input = ModelInput("", ImageShape(**request["shape"]), Resize(**request["resize"]))
    shape_BHWC = (len(sizes), *model_input.shape.as_tuple)
    mapped.seek(0)
    files = [mapped.read(size) for size in sizes]
    pixels = np.frombuffer(mapped, np.uint8, int(np.prod(shape_BHWC)), mapped.tell())
    return decode_here(files, pixels.reshape(shape_BHWC), model_input, request["max_pixels"])


if __name__ == "__main__":
    main()
