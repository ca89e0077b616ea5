"""A decoder of many image files: the protocol, and the one that decodes in the thread that calls."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convvae_service.images.decode import decode_file
from convvae_service.images.header import InvalidImage
from convvae_service.images.model_input import ModelInput

__all__ = ["FileDecoder", "are_small", "decode_here"]

# Threads that decode small files at the same time hand Python's lock to each other at every file, which costs
# more than the decoding. One at a time is faster, while others run the model or read.
_SMALL_FILES = threading.Lock()
_SMALL_BYTES = 4 << 10


def are_small(sizes: Sequence[int]) -> bool:
    """Return whether files of these sizes in bytes are so small that threads only hinder each other."""
    return sum(sizes) <= len(sizes) * _SMALL_BYTES


class FileDecoder(Protocol):
    """Brings image files to the model's pixels. Any thread may call."""

    def __call__(
        self,
        files: Sequence[bytes],
        pixels_BHWC: NDArray[np.uint8],
        model_input: ModelInput,
        max_pixels: int,
        /,
    ) -> Mapping[int, InvalidImage]:
        """Decode files as `decode_file` does.

        Args:
            files: The contents of the files.
            pixels_BHWC: Receives the pixels: (B, H, W, C) in the model's shape, one image per file.
            model_input: The model's image shape and rule for images of another size.
            max_pixels: Largest width x height of a file.

        Returns:
            The errors of the files that have no pixels, by index.

        Raises:
            OSError: Files cannot be decoded any more.
        """


def decode_here(
    files: Sequence[bytes], pixels_BHWC: NDArray[np.uint8], model_input: ModelInput, max_pixels: int
) -> Mapping[int, InvalidImage]:
    """Decode files in the thread that calls; see `FileDecoder`."""
    errors = {}
    with _SMALL_FILES if are_small([len(data) for data in files]) else nullcontext():
        for index, data in enumerate(files):
            try:
                pixels_BHWC[index] = decode_file(
                    data, shape=model_input.shape, resize=model_input.resize, max_pixels=max_pixels
                )
            except InvalidImage as error:
                errors[index] = error
    return errors
