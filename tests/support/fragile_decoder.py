"""A program of `DecodingProcesses` that some files end, as a fault in a decoder or a lack of memory would."""

import os
import struct
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from convvae_service.images import InvalidImage, ModelInput, decode_here, decoding_program

POISON = b"poison"
# It ends the process in the middle of its answer.
TEARING = b"tearing"
HUNGRY = b"hungry"


def decode_or_die(
    files: Sequence[bytes], pixels_BHWC: NDArray[np.uint8], model_input: ModelInput, max_pixels: int
) -> Mapping[int, InvalidImage]:
    """Decode files, and end the process at a file that is poison, or lack memory for one that is hungry."""
    if TEARING in files:
        os.write(int(sys.argv[1]), struct.pack("!i", 100) + b"{")
    if POISON in files or TEARING in files:
        os.abort()
    if HUNGRY in files:
        raise MemoryError
    return decode_here(files, pixels_BHWC, model_input, max_pixels)


if __name__ == "__main__":
    decoding_program.decode_here = decode_or_die  # type: ignore[attr-defined]
    decoding_program.main()
