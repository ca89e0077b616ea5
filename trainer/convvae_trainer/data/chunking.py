"""The number of images that are computed at once: fewer large images, so that memory stays bounded."""

from collections.abc import Iterator

__all__ = ["MAX_ROWS", "chunk_size", "chunks"]

MAX_ROWS = 500
# Values of the networks' largest layer in a chunk, 16 MB of float32. Evaluating 300 images of 256x256x3 then
# took 1.0 GB, of which torch and the images took 0.7 GB. In one chunk it took 4.2 GB.
MAX_VALUES = 1 << 22


def chunk_size(height: int, width: int, channels: int, *, base: int = 32) -> int:
    """Return the number of images of this shape in a chunk, 1 to `MAX_ROWS`.

    The largest layer is the image, or the first layer at half of its height and width.

    Args:
        height: Height of an image in pixels.
        width: Width of an image in pixels.
        channels: Channels of an image.
        base: Channels of that first layer. 0: no network is run.
    """
    values = height * width * max(channels, base // 4)
    return max(1, min(MAX_ROWS, MAX_VALUES // values))


def chunks(count: int, rows: int) -> Iterator[slice]:
    """Yield slices of `rows` rows that cover `count` rows; the last slice may be shorter."""
    for low in range(0, count, rows):
        yield slice(low, min(low + rows, count))
