"""How many images are computed at once: fewer of large ones, so that memory does not grow with their size."""

from collections.abc import Iterator

__all__ = ["MAX_ROWS", "chunk_size", "chunks"]

MAX_ROWS = 500
# Values of the networks' largest layer in a batch, 16 MB of float32. Evaluating 300 images of 256x256x3 then
# took 1.0 GB, 0.7 GB of it torch and the images; all in one batch took 4.2 GB.
MAX_VALUES = 1 << 22


def chunk_size(height: int, width: int, channels: int, *, base: int = 32) -> int:
    """Return how many images of this shape make a batch: 1 to `MAX_ROWS`.

    The largest layer is the image itself or what the first halving leaves, of a quarter of the area.

    Args:
        height: Of an image.
        width: Of an image.
        channels: Of an image.
        base: Channels after the first halving. 0: no network is run.
    """
    values = height * width * max(channels, base // 4)
    return max(1, min(MAX_ROWS, MAX_VALUES // values))


def chunks(count: int, rows: int) -> Iterator[slice]:
    """Yield chunks of so many rows, the last one shorter, that cover `count`."""
    for low in range(0, count, rows):
        yield slice(low, min(low + rows, count))
