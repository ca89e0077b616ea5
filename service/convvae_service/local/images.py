"""The images of a call in this process, as uint8 pixels of the model's size."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae import InvalidInput, ModelInfo, Violation
from convvae.inputs.arguments import MAX_LISTED
from convvae.inputs.images import FileImages, Images
from convvae_service.bundle import Manifest
from convvae_service.engine.cpus import available_cpus
from convvae_service.images import InvalidImage, decode_file

__all__ = ["ImageReader"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageReader:
    """Reads images for one model, as the service does: files are decoded and resized by the manifest's rule.

    Args:
        manifest: The manifest of the model.
        info: Its description.
        max_pixels: Maximum pixels of a file, checked before it is decoded.
    """

    manifest: Manifest
    info: ModelInfo
    max_pixels: int

    def read(self, images: Images) -> NDArray[np.uint8]:
        """Return images as uint8 (N, H, W, C). An array is not copied.

        Raises:
            InvalidInput: Arrays have another size, or files cannot be read. `violations` has up to 100 files.
        """
        images.check(self.info)
        if not isinstance(images, FileImages):
            return images.array.reshape(-1, *self.info.image_shape)
        # Paths that cannot be read are all named, before any file is decoded.
        images.row_bytes()
        pixels = np.empty((images.rows, *self.info.image_shape), np.uint8)
        faults: dict[int, str] = {}

        def decode(row: int) -> None:
            try:
                pixels[row] = decode_file(
                    images.read(row),
                    shape=self.manifest.image,
                    resize=self.manifest.resize,
                    max_pixels=self.max_pixels,
                )
            except InvalidImage as error:
                faults[row] = str(error)

        _for_each(decode, images.rows)
        if faults:
            raise images.named(_refusal(faults))
        return pixels


def _for_each(do: Callable[[int], Any], count: int) -> None:
    """Call a function with 0 to `count` - 1, in as many threads as there are CPUs."""
    threads = min(available_cpus(), count)
    if threads == 1:
        for row in range(count):
            do(row)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(do, range(count)):
            pass


def _refusal(faults: dict[int, str]) -> InvalidInput:
    violations = [Violation(f"files[{row}]", faults[row]) for row in sorted(faults)]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return InvalidInput(f"{violations[0]}{more}", violations=violations[:MAX_LISTED])
