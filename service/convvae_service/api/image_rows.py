"""The images of a request, before their files are decoded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.calls.waiting import wait
from convvae_service.errors import InvalidInput, Violation
from convvae_service.images import DecodingThreads, InvalidImages, decode_files

__all__ = ["ImageRows"]


@dataclass(kw_only=True, slots=True)
class ImageRows:
    """The images of a request, as pixels or as files. Everything but the content of the files is checked."""

    pixels: NDArray[np.uint8] | None
    files: tuple[bytes, ...]
    shape: ImageShape

    def __len__(self) -> int:
        return len(self.files) if self.pixels is None else len(self.pixels)

    async def decode(
        self, *, resize: Resize, max_pixels: int, threads: DecodingThreads, at_once: int
    ) -> NDArray[np.uint8]:
        """Return the images, uint8 (B, H, W, C).

        Args:
            resize: How an image of another size is made to fit.
            max_pixels: Maximum pixels of one file, checked before it is decoded.
            threads: Threads that decode files.
            at_once: Maximum number of files of this call that are decoded at the same time.

        Raises:
            InvalidInput: Some files are not images; each is listed by its index.
        """
        if self.pixels is not None:
            return self.pixels
        try:
            # The future gets no name: its error would hold it, by the traceback.
            return await wait(
                decode_files(
                    self.files,
                    shape=self.shape,
                    resize=resize,
                    max_pixels=max_pixels,
                    threads=threads,
                    at_once=at_once,
                )
            )
        except InvalidImages as error:
            bad = error.reasons.items()
            raise InvalidInput([Violation(f"files[{index}]", reason) for index, reason in bad]) from None
