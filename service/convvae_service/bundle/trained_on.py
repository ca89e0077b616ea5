"""The fingerprints of the images that a model was trained on: one file of a bundle, and its entry.

A fingerprint is the hash of an image's pixels, at the model's size. The file has each of them once: unsigned
integers of 8 bytes, little-endian, in ascending order, and nothing else.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle.errors import BundleError
from convvae_service.bundle.names import check_file_name, check_sha256

__all__ = ["TRAINED_ON_FILE", "TrainedOn", "decode_trained_on", "encode_trained_on"]

TRAINED_ON_FILE = "trained_on.bin"
BYTES_EACH = 8
_MAX_COUNT = 1 << 40


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedOn:
    """The manifest's entry for the file of fingerprints. `count` is the number of different images."""

    file: str
    sha256: str
    count: int

    def __post_init__(self) -> None:
        check_file_name(self.file, "trained_on.file")
        check_sha256(self.sha256, self.file)
        if not 1 <= self.count <= _MAX_COUNT:
            raise BundleError(f"trained_on.count is {self.count}: it must be 1 to {_MAX_COUNT}")

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return BYTES_EACH * self.count


def encode_trained_on(fingerprints_N: NDArray[np.uint64]) -> tuple[TrainedOn, bytes]:
    """Return the entry and the bytes of the file for fingerprints, uint64 of shape (N,), in any order."""
    data = np.unique(fingerprints_N).astype("<u8").tobytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return TrainedOn(file=TRAINED_ON_FILE, sha256=sha256, count=len(data) // BYTES_EACH), data


def decode_trained_on(data: bytes, entry: TrainedOn) -> NDArray[np.uint64]:
    """Return the fingerprints in the bytes of a file, uint64 of shape (count,), in ascending order.

    Raises:
        BundleError: The bytes are not those of the entry, or not in ascending order.
    """
    if len(data) != entry.bytes:
        raise BundleError(
            f"{entry.file} has {len(data)} bytes, and {entry.count} fingerprints take {entry.bytes}"
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise BundleError(f"{entry.file} is damaged: its sha256 is {digest[:12]}…, not {entry.sha256[:12]}…")
    fingerprints_N = np.frombuffer(data, "<u8").astype(np.uint64)
    if not (fingerprints_N[1:] > fingerprints_N[:-1]).all():
        raise BundleError(f"{entry.file} is damaged: its fingerprints are not in ascending order")
    return fingerprints_N
