"""Requests of the wire to checked arrays: every bad field is found before any work starts."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convvae.v1 import vae_pb2
from convvae_service.api.noise import MAX_SEED
from convvae_service.bundle import ImageShape, Resize
from convvae_service.errors import InvalidInput, Violation
from convvae_service.images import InvalidImage, decode_file

__all__ = [
    "CallLimits",
    "ImageRequest",
    "ImageRows",
    "read_images",
    "read_latents",
    "read_sample",
    "read_score",
]

# Far beyond all use, and far from where noise times temperature overflows.
MAX_TEMPERATURE = 1e6
_LITTLE_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """Limits on one call to one model."""

    max_rows: int
    max_message_bytes: int
    max_pixels_per_file: int


class ImageRequest(Protocol):
    """What `Encode`, `Reconstruct` and `Score` requests share."""

    @property
    def pixels(self) -> vae_pb2.Pixels:
        """Images of the model's size."""

    @property
    def files(self) -> Sequence[bytes]:
        """Image files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRows:
    """The images of a request, checked in all that can be checked without decoding files."""

    pixels: NDArray[np.uint8] | None
    files: tuple[bytes, ...]
    num_bytes: int
    shape: ImageShape

    def __len__(self) -> int:
        return len(self.files) if self.pixels is None else len(self.pixels)

    async def decode(
        self, *, resize: Resize, max_pixels: int, threads: Executor, at_once: int
    ) -> NDArray[np.uint8]:
        """Return the images, uint8 (B, H, W, C); files are decoded in `threads`, `at_once` at a time.

        Raises:
            InvalidInput: Files are no images, with each one's index.
        """
        if self.pixels is not None:
            return self.pixels
        images = np.empty((len(self.files), *self.shape.as_tuple), np.uint8)
        loop = asyncio.get_running_loop()
        waiting = iter(enumerate(self.files))
        found: list[Violation] = []

        def decode_one(index: int, data: bytes) -> Violation | None:
            try:
                images[index] = decode_file(data, shape=self.shape, resize=resize, max_pixels=max_pixels)
            except InvalidImage as error:
                return Violation(f"files[{index}]", str(error))
            return None

        async def decode_in_turn() -> None:
            for index, data in waiting:
                if violation := await loop.run_in_executor(threads, decode_one, index, data):
                    found.append(violation)

        # One file at a time for each thread: the files of other calls get their turn in between.
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(at_once, len(self.files))):
                tasks.create_task(decode_in_turn())
        if found:
            raise InvalidInput(sorted(found, key=lambda v: int(v.field[len("files[") : -1])))
        return images


def read_images(request: ImageRequest, *, shape: ImageShape, limits: CallLimits) -> ImageRows:
    """Return the images of a request.

    Raises:
        InvalidInput: Fields are wrong, or there are too many rows.
    """
    # Counted before they are copied: a message holds millions of empty ones.
    num_files = len(request.files)
    has_pixels = request.HasField("pixels")  # type: ignore[attr-defined]
    if has_pixels and num_files:
        raise InvalidInput([Violation("files", "set either pixels or files, not both")])
    if not has_pixels:
        _check_count(num_files, "files", limits)
        files = tuple(request.files)
        num_bytes = sum(map(len, files))
        if num_bytes > limits.max_message_bytes:
            too_large = f"have {num_bytes} bytes, more than the {limits.max_message_bytes} of one call"
            raise InvalidInput([Violation("files", too_large)])
        return ImageRows(pixels=None, files=files, num_bytes=num_bytes, shape=shape)
    pixels = request.pixels
    bad = [
        Violation(f"pixels.{name}", f"is {actual}, the model's images have {expected}")
        for name, actual, expected in (
            ("height", pixels.height, shape.height),
            ("width", pixels.width, shape.width),
            ("channels", pixels.channels, shape.channels),
        )
        if actual != expected
    ]
    if bad:
        raise InvalidInput(bad)
    _check_count(pixels.count, "pixels.count", limits)
    data = pixels.data
    expected = pixels.count * shape.num_values
    if len(data) != expected:
        raise InvalidInput(
            [
                Violation(
                    "pixels.data", f"has {len(data)} bytes, {pixels.count} images of {shape} have {expected}"
                )
            ]
        )
    array = np.frombuffer(data, np.uint8).reshape(pixels.count, *shape.as_tuple)
    return ImageRows(pixels=array, files=(), num_bytes=len(data), shape=shape)


def read_latents(vectors: vae_pb2.Vectors, *, dimension: int, limits: CallLimits) -> NDArray[np.float32]:
    """Return latent vectors, float32 (B, Z).

    Raises:
        InvalidInput: The dimension or length is wrong, there are too many rows, or values are not finite.
    """
    if vectors.dimension != dimension:
        raise InvalidInput(
            [
                Violation(
                    "latents.dimension",
                    f"is {vectors.dimension}, the model's latent vectors have {dimension}",
                )
            ]
        )
    _check_count(vectors.count, "latents.count", limits)
    data = vectors.data
    expected = vectors.count * dimension * 4
    if len(data) != expected:
        raise InvalidInput(
            [
                Violation(
                    "latents.data",
                    f"has {len(data)} bytes, {vectors.count} float32 vectors of {dimension} have {expected}",
                )
            ]
        )
    latents = np.frombuffer(data, _LITTLE_FLOAT32).reshape(-1, dimension).astype(np.float32, copy=False)
    bad_rows = np.flatnonzero(~np.isfinite(latents).all(axis=1))
    if len(bad_rows):
        raise InvalidInput([Violation(f"latents[{row}]", "has NaN or infinite values") for row in bad_rows])
    return latents


def read_sample(request: vae_pb2.SampleRequest, *, limits: CallLimits) -> tuple[int, float]:
    """Return (count, temperature) of a request.

    Raises:
        InvalidInput: The count, the temperature or the range of rows is wrong.
    """
    _check_count(request.count, "count", limits)
    temperature = request.temperature if request.HasField("temperature") else 1.0
    if not 0 <= temperature <= MAX_TEMPERATURE:
        raise InvalidInput([Violation("temperature", f"is {temperature:g}: 0 to {MAX_TEMPERATURE:g}")])
    _check_rows(request.first_row, request.count)
    return request.count, temperature


def read_score(request: vae_pb2.ScoreRequest, *, rows: int, limits: CallLimits) -> int:
    """Return the number of draws for each of `rows` images, 0 for the posterior mean.

    Raises:
        InvalidInput: The number is negative, too large, or the range of rows is wrong.
    """
    draws = request.num_samples
    if draws < 0:
        raise InvalidInput([Violation("num_samples", f"is {draws}: 0 (posterior mean) or above")])
    if rows * draws > limits.max_rows:
        raise InvalidInput(
            [
                Violation(
                    "num_samples",
                    f"{rows} images x {draws} draws are more than {limits.max_rows} rows a call",
                )
            ]
        )
    _check_rows(request.first_row, rows)
    return draws


def _check_count(count: int, field: str, limits: CallLimits) -> None:
    if count < 1:
        raise InvalidInput(
            [
                Violation(
                    field, f"{'the batch is empty' if count == 0 else f'is {count}'}: send 1 or more rows"
                )
            ]
        )
    if count > limits.max_rows:
        raise InvalidInput(
            [Violation(field, f"{count} rows are more than the {limits.max_rows} rows of one call")]
        )


def _check_rows(first_row: int, count: int) -> None:
    if first_row + count - 1 > MAX_SEED:
        raise InvalidInput(
            [Violation("first_row", f"rows {first_row} to {first_row + count - 1} pass 2^64 - 1")]
        )
