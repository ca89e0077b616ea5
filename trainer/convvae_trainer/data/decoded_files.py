"""Image files of a folder, decoded ahead on all CPUs and given in order."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.engine.cpus import available_cpus
from convvae_service.images import (
    DecodingProcesses,
    FileDecoder,
    FileRows,
    ModelInput,
    are_small,
    read_file,
    read_header,
)

__all__ = ["DecodedFile", "FileRules", "decoded_files"]

_GROUP_FILES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRules:
    """How files are decoded.

    Attributes:
        shape: The shape of the pictures.
        may_widen: Whether a grey `shape` becomes RGB for a picture in colour.
        resize: How they are resized.
        max_pixels: Largest width x height of a file.
    """

    shape: ImageShape
    may_widen: bool
    resize: Resize
    max_pixels: int


class DecodedFile(NamedTuple):
    """One file.

    Attributes:
        name: Its name.
        picture: (height, width, channels) that its header has, or None if that cannot be read.
        pixels: uint8 (H, W, C), or why there are none. C may be 3 where the picture and the rules have 1.
    """

    name: str
    picture: tuple[int, int, int] | None
    pixels: NDArray[np.uint8] | str


def decoded_files(folder: Path, names: Sequence[str], rules: FileRules) -> Generator[DecodedFile, None, None]:
    """Yield each of the files in `folder`, in order, decoded on all CPUs, or on one if they are small.

    Those of about two groups for each CPU are in memory.
    """
    groups = [names[start : start + _GROUP_FILES] for start in range(0, len(names), _GROUP_FILES)]
    cpus = 1 if _has_small_files(folder, names) else min(available_cpus(), len(groups))
    window: deque[Future[list[DecodedFile]]] = deque()
    with DecodingProcesses(cpus) as decode, ThreadPoolExecutor(max(1, cpus)) as pool:
        try:
            for group in groups:
                window.append(pool.submit(_decoded_group, folder, group, rules, decode))
                if len(window) > 2 * cpus:
                    yield from window.popleft().result()
            while window:
                yield from window.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _has_small_files(folder: Path, names: Sequence[str]) -> bool:
    """Return whether the mean size of some of the files is small."""
    sizes = []
    for name in names[:: max(1, len(names) // _GROUP_FILES)]:
        with suppress(OSError):
            sizes.append((folder / name).stat().st_size)
    return are_small(sizes)


def _decoded_group(
    folder: Path, names: Sequence[str], rules: FileRules, decode: FileDecoder
) -> list[DecodedFile]:
    pictures: dict[int, tuple[int, int, int]] = {}

    def content(index: int) -> bytes:
        data = read_file(f"{folder}/{names[index]}")
        pictures[index] = read_header(data).shape
        return data

    rows = FileRows([str(index) for index in range(len(names))], content, rules.max_pixels)
    shape = rules.shape
    batch = rows.read(ModelInput("", shape, rules.resize), decode)
    if rules.may_widen and any(picture[2] > shape.channels for picture in pictures.values()):
        batch = rows.read(ModelInput("", replace(shape, channels=3), rules.resize), decode)
    pixels: dict[int, NDArray[np.uint8] | str] = {row.place: row.reason for row in batch.rejected}
    pixels |= zip(map(int, batch.ids), batch.images, strict=True)
    return [DecodedFile(name, pictures.get(index), pixels[index]) for index, name in enumerate(names)]
