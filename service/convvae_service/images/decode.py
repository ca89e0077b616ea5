"""Image files decoded to the model's pixels: uint8, height x width x channels.

Training and serving use the same functions, so a file from a client is treated like a training file.
"""

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images.header import TINY_PIXELS, ImageHeader, InvalidImage, LargeFile, TooManyPixels
from convvae_service.images.jpeg import JPEG_SIGNATURE, read_jpeg
from convvae_service.images.jpeg_decoder import jpeg_pixels
from convvae_service.images.orientation import UPRIGHT
from convvae_service.images.picture import picture_of_array
from convvae_service.images.pillow_decoder import decode_with_pillow
from convvae_service.images.png import PNG_SIGNATURE, read_png
from convvae_service.images.resizing import decoding_scale, fit_picture, resizing_bytes
from convvae_service.images.webp import is_webp, read_webp

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "decode_file",
    "decode_image",
    "decoding_bytes",
    "most_decoding_bytes",
    "read_header",
]

DEFAULT_MAX_PIXELS = 100_000_000

# A progressive JPEG without subsampling takes 9 bytes a pixel, a PNG at most 12, a WebP 13.
_MAX_BYTES_PER_PIXEL = 10
# Decoding a file below both takes at most about 0.1 s.
_SMALL_DECODING_BYTES = 32 << 20
_SMALL_FILE_BYTES = 1 << 20
# A WebP may have a set of tables, of 12 to 20 KiB, for each 16 pixels: 20 MiB for a tiny picture.
_TINY_SIDE = 1024
# Small pictures may take more for each pixel.
_ALWAYS_ALLOWED_BYTES = 64 << 20

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def decode_file(
    data: bytes,
    *,
    shape: ImageShape,
    resize: Resize,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    small_only: bool = False,
) -> NDArray[np.uint8]:
    """Decode an image file and bring it to the model's shape.

    The EXIF orientation is applied, transparency is blended over black, 16-bit values become 8-bit values,
    and the image is converted to grey or RGB according to `shape.channels`. An animation gives its first
    frame. All other metadata are skipped.

    Args:
        data: A JPEG, PNG or WebP file.
        shape: The model's image shape.
        resize: The rule for images of another size.
        max_pixels: Largest width x height accepted, checked before decoding.
        small_only: Whether to decode no file that takes long.

    Returns:
        uint8 array of shape (height, width, channels), 0 to 255.

    Raises:
        InvalidImage: `data` is not a readable image.
        TooManyPixels: It has more than `max_pixels`, or decoding takes more than `most_decoding_bytes`.
        LargeFile: `small_only` is true, and the file is larger than a MiB, needs more than 32 MiB, or is a
            WebP of more than 16,384 pixels or 1,024 a side.
    """
    header = read_header(data)
    return decode_image(header, shape=shape, resize=resize, max_pixels=max_pixels, small_only=small_only)


def decode_image(
    header: ImageHeader,
    *,
    shape: ImageShape,
    resize: Resize,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    small_only: bool = False,
) -> NDArray[np.uint8]:
    """Decode the file of a header from `read_header`, as `decode_file` does."""
    if header.width * header.height > max_pixels:
        raise TooManyPixels(f"{header.width}x{header.height} is more than the limit of {max_pixels} pixels")
    if not _is_tiny(header):
        _check_memory(header, shape=shape, max_pixels=max_pixels, small_only=small_only)
    if not header.content.startswith(JPEG_SIGNATURE):
        return decode_with_pillow(header, shape=shape, resize=resize, scale=1)
    scale = decoding_scale(header, shape=shape, resize=resize)
    pixels = jpeg_pixels(header, channels=shape.channels, scale=scale)
    if pixels is None:
        return decode_with_pillow(header, shape=shape, resize=resize, scale=scale)
    if pixels.shape == shape.as_tuple and header.orientation == UPRIGHT:
        return pixels
    return fit_picture(picture_of_array(pixels), header, shape=shape, resize=resize, scale=scale)


def _is_tiny(header: ImageHeader) -> bool:
    """Return whether the file certainly takes little time and memory."""
    width, height = header.width, header.height
    is_tiny = width * height <= TINY_PIXELS and width <= _TINY_SIDE and height <= _TINY_SIDE
    return is_tiny and len(header.content) <= _SMALL_FILE_BYTES


def _check_memory(header: ImageHeader, *, shape: ImageShape, max_pixels: int, small_only: bool) -> None:
    """Check that decoding needs no more memory than allowed and, with `small_only`, that it needs little.

    Raises:
        TooManyPixels: It needs more than `most_decoding_bytes`.
        LargeFile: It takes long or needs much memory, and `small_only` is true.
    """
    needed, most = decoding_bytes(header, shape=shape), most_decoding_bytes(max_pixels)
    if needed > most:
        raise TooManyPixels(
            f"{header.width}x{header.height} takes {needed >> 20} MiB to decode, more than the limit of"
            f" {most >> 20} MiB for {max_pixels} pixels"
        )
    is_large = len(header.content) > _SMALL_FILE_BYTES or needed > _SMALL_DECODING_BYTES
    if small_only and (is_large or is_webp(header.content)):
        raise LargeFile(needed + len(header.content))


def decoding_bytes(header: ImageHeader, *, shape: ImageShape) -> int:
    """Return the bytes that `decode_image` holds at its peak, at most, without those of the file."""
    return header.held_bytes + resizing_bytes(header, shape=shape)


def most_decoding_bytes(max_pixels: int) -> int:
    """Return the bytes that decoding one file may hold: 10 for each of `max_pixels`, and at least 64 MiB."""
    return max(_ALWAYS_ALLOWED_BYTES, _MAX_BYTES_PER_PIXEL * max_pixels)


def read_header(data: bytes) -> ImageHeader:
    """Return the header of an image file: its size, channels and orientation.

    Raises:
        InvalidImage: `data` is not an image.
    """
    if data.startswith(PNG_SIGNATURE):
        return read_png(data)
    if data.startswith(JPEG_SIGNATURE):
        return read_jpeg(data)
    if is_webp(data):
        return read_webp(data)
    if not data:
        raise InvalidImage("the file is empty")
    if data.startswith(_LFS_POINTER):
        raise InvalidImage("the file is a pointer of Git LFS, not the image: run `git lfs pull`")
    raise InvalidImage("not a JPEG, PNG or WebP image")
