"""Rows that are image files, read a chunk at a time."""

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import file_decoder, file_rows
from convvae_service.images.file_rows import FileRows
from convvae_service.images.header import InvalidImage
from convvae_service.images.model_input import ModelInput

INPUT = ModelInput("tiny", ImageShape(height=8, width=8, channels=1), Resize())


def png(value: int, *, num_bytes: int = 0) -> bytes:
    """Return a file of one grey value, with zeros after its end."""
    out = io.BytesIO()
    Image.new("L", (8, 8), value).save(out, "PNG")
    return out.getvalue() + bytes(num_bytes)


def rows(content: Callable[[int], bytes], count: int) -> FileRows:
    return FileRows([f"image-{index}" for index in range(count)], content, max_pixels=10_000)


@pytest.mark.parametrize("chunk_bytes", [1, 200, 1 << 20])
def test_chunks_keep_order_and_reasons(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a chunk holds, rows are in order, and unreadable ones have their place and reason."""
    monkeypatch.setattr(file_rows, "_CHUNK_BYTES", chunk_bytes)

    def content(index: int) -> bytes:
        if index in (0, 6):
            raise InvalidImage(f"missing {index}")
        return b"no image" if index == 3 else png(index)

    batch = rows(content, 7).read(INPUT)
    assert list(batch.ids) == ["image-1", "image-2", "image-4", "image-5"]
    assert batch.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5]
    assert [(row.place, row.id) for row in batch.rejected] == [(0, "image-0"), (3, "image-3"), (6, "image-6")]
    assert [row.reason for row in batch.rejected][::2] == ["missing 0", "missing 6"]


def test_small_files_are_decoded_by_one_thread_at_a_time_and_large_ones_are_not() -> None:
    """While small files wait for their turn, contents are still read, and large files are decoded."""
    with file_decoder._SMALL_FILES, ThreadPoolExecutor(2) as pool:
        is_read = threading.Event()

        def content(_: int) -> bytes:
            is_read.set()
            return png(7)

        waiting = pool.submit(rows(content, 1).read, INPUT)
        assert is_read.wait(30)
        large = pool.submit(rows(lambda _: png(9, num_bytes=1 << 16), 2).read, INPUT)
        assert large.result(30).images.max() == 9
        assert not waiting.done()
        file_decoder._SMALL_FILES.release()
        try:
            assert np.all(waiting.result(30).images == 7)
        finally:
            file_decoder._SMALL_FILES.acquire()
