"""Requests of `convvae.v1` as checked arrays. A bad field is found before any work starts."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convvae.v1 import vae_pb2
from convvae_service.api.image_rows import ImageRows
from convvae_service.api.limits import CallLimits
from convvae_service.api.noise import MAX_SEED, MAX_TEMPERATURE
from convvae_service.bundle import ImageShape
from convvae_service.errors import InvalidInput, Violation

__all__ = ["ImageRequest", "read_images", "read_latents", "read_sample", "read_score"]

_LITTLE_FLOAT32 = np.dtype("<f4")


class ImageRequest(Protocol):
    """The fields that the requests of `Encode`, `Reconstruct` and `Score` share."""

    @property
    def pixels(self) -> vae_pb2.Pixels:
        """Images of the model's size."""

    @property
    def files(self) -> Sequence[bytes]:
        """Image files."""


def read_images(request: ImageRequest, *, shape: ImageShape, limits: CallLimits) -> ImageRows:
    """Return the images of a request.

    Raises:
        InvalidInput: Fields are wrong, or there are too many rows.
    """
    has_pixels = request.HasField("pixels")  # type: ignore[attr-defined]
    if not has_pixels:
        return _read_files(request, shape, limits)
    if len(request.files):
        raise _invalid("files", "set either pixels or files, not both")
    return _read_pixels(request.pixels, shape, limits)


def read_latents(vectors: vae_pb2.Vectors, *, dimension: int, limits: CallLimits) -> NDArray[np.float32]:
    """Return latent vectors, float32 (B, Z).

    Raises:
        InvalidInput: The dimension or length is wrong, there are too many rows, or values are not finite.
    """
    if vectors.dimension != dimension:
        raise _invalid(
            "latents.dimension", f"is {vectors.dimension}, the model's latent vectors have {dimension}"
        )
    _check_count(vectors.count, "latents.count", limits)
    expected = vectors.count * dimension * 4
    if len(vectors.data) != expected:
        raise _invalid(
            "latents.data",
            f"has {len(vectors.data)} bytes, {vectors.count} float32 vectors of {dimension} have {expected}",
        )
    latents = np.frombuffer(vectors.data, _LITTLE_FLOAT32).reshape(-1, dimension)
    bad_rows = np.flatnonzero(~np.isfinite(latents).all(axis=1))
    if len(bad_rows):
        raise InvalidInput([Violation(f"latents[{row}]", "has NaN or infinite values") for row in bad_rows])
    return latents.astype(np.float32, copy=False)


def read_sample(request: vae_pb2.SampleRequest, *, limits: CallLimits) -> tuple[int, float]:
    """Return the count and the temperature of a request.

    Raises:
        InvalidInput: The count, the temperature or the range of rows is wrong.
    """
    _check_count(request.count, "count", limits)
    temperature = request.temperature if request.HasField("temperature") else 1.0
    if not 0 <= temperature <= MAX_TEMPERATURE:
        raise _invalid("temperature", f"is {temperature:g}, it must be from 0 to {MAX_TEMPERATURE:g}")
    _check_rows(request.first_row, request.count)
    return request.count, temperature


def read_score(request: vae_pb2.ScoreRequest, *, rows: int, limits: CallLimits) -> int:
    """Return the number of posterior samples for each of `rows` images; 0 stands for the posterior mean.

    Raises:
        InvalidInput: The number is negative or too large, or the range of rows is wrong.
    """
    num_samples = request.num_samples
    if num_samples < 0:
        raise _invalid("num_samples", f"is {num_samples}, it must be 0 (posterior mean) or more")
    if rows * num_samples > limits.max_rows:
        raise _invalid(
            "num_samples",
            f"{rows} images x {num_samples} samples are more than {limits.max_rows} rows a call",
        )
    _check_rows(request.first_row, rows)
    return num_samples


def _read_files(request: ImageRequest, shape: ImageShape, limits: CallLimits) -> ImageRows:
    # Count before copying: a message has room for millions of empty files.
    _check_count(len(request.files), "files", limits)
    files = tuple(request.files)
    return ImageRows(pixels=None, files=files, shape=shape)


def _read_pixels(pixels: vae_pb2.Pixels, shape: ImageShape, limits: CallLimits) -> ImageRows:
    if (pixels.height, pixels.width, pixels.channels) != shape.as_tuple:
        raise InvalidInput(_wrong_sizes(pixels, shape))
    _check_count(pixels.count, "pixels.count", limits)
    data = pixels.data
    count = pixels.count
    expected = count * shape.num_values
    if len(data) != expected:
        raise _invalid("pixels.data", f"has {len(data)} bytes, {count} images of {shape} have {expected}")
    array = np.frombuffer(data, np.uint8).reshape(count, *shape.as_tuple)
    return ImageRows(pixels=array, files=(), shape=shape)


def _wrong_sizes(pixels: vae_pb2.Pixels, shape: ImageShape) -> list[Violation]:
    return [
        Violation(f"pixels.{name}", f"is {actual}, the model's images have {expected}")
        for name, actual, expected in (
            ("height", pixels.height, shape.height),
            ("width", pixels.width, shape.width),
            ("channels", pixels.channels, shape.channels),
        )
        if actual != expected
    ]


def _check_count(count: int, field: str, limits: CallLimits) -> None:
    if count == 0:
        raise _invalid(field, "the batch is empty: send 1 or more rows")
    if count < 0:
        raise _invalid(field, f"is {count}: send 1 or more rows")
    if count > limits.max_rows:
        raise _invalid(field, f"{count} rows are more than the {limits.max_rows} rows of one call")


def _check_rows(first_row: int, count: int) -> None:
    last_row = first_row + count - 1
    if last_row > MAX_SEED:
        raise _invalid("first_row", f"rows {first_row} to {last_row} exceed the highest row, 2^64 - 1")


def _invalid(field: str, description: str) -> InvalidInput:
    return InvalidInput([Violation(field, description)])
