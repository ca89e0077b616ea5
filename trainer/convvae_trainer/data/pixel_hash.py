"""The hash of an image's own pixels: what its place in a split and its fingerprint follow from.

N = images, H = height, W = width, C = channels.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["pixel_hashes"]

DIGEST_BYTES = 8


def pixel_hashes(images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a hash of each image, uint64 of shape (N,): the same for the same pixels, on every machine.

    It is BLAKE2b of 8 bytes (RFC 7693) over height, width and channels, as little-endian uint32, and then the
    pixels, row by row. Names, labels and the place in the data set have no part in it.
    """
    start = hashlib.blake2b(np.array(images_NHWC.shape[1:], "<u4").tobytes(), digest_size=DIGEST_BYTES)
    digests = bytearray()
    for image_HWC in images_NHWC:
        digest = start.copy()
        digest.update(np.ascontiguousarray(image_HWC).data)
        digests += digest.digest()
    return np.frombuffer(bytes(digests), "<u8").astype(np.uint64)
