"""The images of a request, before their files are decoded."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Resize
from convvae_service.errors import InvalidInput, Violation
from convvae_service.images import InvalidImage, decode_file

__all__ = ["ImageRows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRows:
    """The images of a request, as pixels or as files. Everything but the content of the files is checked."""

    pixels: NDArray[np.uint8] | None
    files: tuple[bytes, ...]
    num_bytes: int
    shape: ImageShape

    def __len__(self) -> int:
        return len(self.files) if self.pixels is None else len(self.pixels)

    async def decode(
        self, *, resize: Resize, max_pixels: int, threads: Executor, at_once: int
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
        images = np.empty((len(self.files), *self.shape.as_tuple), np.uint8)
        loop = asyncio.get_running_loop()
        waiting = iter(enumerate(self.files))
        bad: dict[int, Violation] = {}

        def decode_one(index: int, data: bytes) -> None:
            try:
                images[index] = decode_file(data, shape=self.shape, resize=resize, max_pixels=max_pixels)
            except InvalidImage as error:
                bad[index] = Violation(f"files[{index}]", str(error))

        async def decode_waiting() -> None:
            for index, data in waiting:
                await loop.run_in_executor(threads, decode_one, index, data)

        # Hand over one file at a time for each thread, so that the files of other calls get between them.
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(at_once, len(self.files))):
                tasks.create_task(decode_waiting())
        if bad:
            raise InvalidInput([bad[index] for index in sorted(bad)])
        return images
