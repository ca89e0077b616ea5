import os
from pathlib import Path

import numpy as np
import pytest

from convvae_service.images import BadSource, ModelInput, decode_file
from convvae_service.images.folder_source import FolderSource

EXPECTED = sorted(
    f"class-{number % 3}/{number:02}.{('png', 'jpg', 'webp', 'JPEG')[number % 4]}" for number in range(12)
)


def test_files_of_any_depth_in_order(folder: Path, tiny_input: ModelInput) -> None:
    """Ids are sorted paths relative to the folder. Hidden files and other files are skipped."""
    source = FolderSource(folder)
    assert source.name == "pictures"
    assert len(source) == 12
    batch = source.read(range(12), tiny_input)
    assert batch.ids == EXPECTED
    assert source.read(range(3, 5), tiny_input).ids == EXPECTED[3:5]


def test_pixels_are_those_of_the_service(folder: Path, tiny_input: ModelInput) -> None:
    """Files are decoded and resized by the function that the service uses."""
    batch = FolderSource(folder).read(range(12), tiny_input)
    for image, file_id in zip(batch.images, batch.ids, strict=True):
        data = (folder / file_id).read_bytes()
        np.testing.assert_array_equal(
            image, decode_file(data, shape=tiny_input.shape, resize=tiny_input.resize)
        )


def test_unreadable_files_are_rejected_with_a_reason(folder: Path, tiny_input: ModelInput) -> None:
    """The other files of the batch are still read."""
    source = FolderSource(folder)
    (folder / EXPECTED[2]).write_bytes(b"no image")
    (folder / EXPECTED[4]).unlink()
    whole = (folder / EXPECTED[5]).read_bytes()
    (folder / EXPECTED[5]).write_bytes(whole[: len(whole) // 2])
    batch = source.read(range(12), tiny_input)
    assert [(bad.id, bad.reason) for bad in batch.rejected] == [
        (EXPECTED[2], "not a JPEG, PNG or WebP image"),
        (EXPECTED[4], "cannot be read: No such file or directory"),
        (EXPECTED[5], "image file is cut short"),
    ]
    assert batch.ids == [name for i, name in enumerate(EXPECTED) if i not in (2, 4, 5)]
    assert len(batch.images) == 9


def test_name_that_is_no_text_is_rejected(folder: Path, tiny_input: ModelInput) -> None:
    """An id is text; a file whose name is not UTF-8 cannot have one."""
    (folder / EXPECTED[0]).rename(folder / os.fsdecode(b"\xff\xfe.png"))
    batch = FolderSource(folder).read(range(12), tiny_input)
    assert [(bad.id, bad.reason) for bad in batch.rejected] == [
        ("\\xff\\xfe.png", "its name is not UTF-8: rename it")
    ]


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    """The message names the accepted formats."""
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BadSource, match=r"no images in .*: it must contain JPEG, PNG or WebP files"):
        FolderSource(tmp_path)


def test_folder_that_cannot_be_listed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be listed is an error, because its images would be missing without notice."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("class-1"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadSource, match=r"class-1 cannot be listed: Permission denied"):
        FolderSource(folder)
