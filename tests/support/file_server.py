"""A server in memory that encodes files of one byte, for coalescers without a network."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from convvae.calls.image_operations import Encode
from convvae.coalescing.small_call import Joinable, SmallCall, small_call
from convvae.errors import InvalidInput, Violation
from convvae.inputs.images import FileImages
from convvae.results import Encoded
from support.waiting import wait_until

__all__ = ["BAD", "FileServer", "encode_files"]

# The server refuses this file.
BAD = 255


def encode_files(*values: int) -> SmallCall:
    """Return a call that encodes files of one byte."""
    small = small_call(Encode(FileImages([bytes([value]) for value in values])))
    assert small is not None
    return small


@dataclass
class FileServer:
    """Answers each file with its byte.

    Attributes:
        requests: The files of each request, in order of arrival.
        spoil: Called with the files of a request before its answer. It may raise.
    """

    requests: list[list[int]] = field(default_factory=list)
    spoil: Callable[[list[int]], None] = lambda _files: None

    def receive(self, operation: Joinable) -> list[int]:
        """Record a request, and return its files."""
        assert isinstance(operation, Encode)
        assert isinstance(operation.images, FileImages)
        self.requests.append([file[0] for file in operation.images.files if isinstance(file, bytes)])
        return self.requests[-1]

    def answer(self, files: list[int]) -> Encoded:
        """Answer a request, or refuse the files that are `BAD`."""
        self.spoil(files)
        bad = [Violation(f"files[{row}]", "no image") for row, file in enumerate(files) if file == BAD]
        if bad:
            raise InvalidInput(str(bad[0]), violations=bad, code="INVALID_ARGUMENT")
        mean = np.array(files, np.float32)[:, None]
        return Encoded(model="m", version=1, precision="fp32", mean=mean)

    def wait_for(self, requests: int) -> None:
        """Wait until this number of requests has arrived."""
        wait_until(lambda: len(self.requests) >= requests)
