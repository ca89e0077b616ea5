"""A folder of image files as one array."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import Resize
from convvae_service.images import (
    DEFAULT_MAX_PIXELS,
    InvalidImage,
    TooManyPixels,
    decode_image,
    image_files,
    printable,
    read_file,
    read_header,
)
from convvae_trainer.data.decoded_files import FileRules, decoded_files
from convvae_trainer.data.image_stack import ImageStack
from convvae_trainer.data.split_folders import FolderLayout, folder_layout
from convvae_trainer.errors import BadData

__all__ = ["MAX_NAMED", "FolderImages", "read_folder"]

MAX_NAMED = 10  # files that an error names, or a run prints


class FolderImages(NamedTuple):
    """The images of a folder.

    Attributes:
        images: uint8, (N, H, W, C).
        paths: The path of each image, relative to the folder, in sorted order.
        note: A sentence on files that were read in other colours than they have, and on those that were not
            read, or "".
        skipped: Path and fault of each file that was skipped.
        layout: How the first level of the folder is read.
        sizes: The sizes that the pictures had before they were resized, in words.
    """

    images: NDArray[np.uint8]
    paths: Sequence[str]
    note: str
    skipped: Sequence[str] = ()
    layout: FolderLayout = FolderLayout()
    sizes: str = ""


def read_folder(
    folder: Path,
    *,
    image_size: tuple[int, int] | None,
    resize: Resize,
    channels: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    skip: bool = False,
    needs_train: bool = False,
) -> FolderImages:
    """Read all images in `folder`, sorted by path.

    Args:
        folder: Folder of JPEG, PNG or WebP files, at any depth. `image_files` says what is left out.
        image_size: (height, width) of the result. None: all files must have one size.
        resize: How files are resized.
        channels: Channels of the result: 1 (grey) or 3 (RGB). None: 3 if any file is in colour.
        max_pixels: Largest width x height of a file.
        skip: Whether to skip files that cannot be used.
        needs_train: Whether a folder that names its parts must have one to train on.

    Raises:
        BadData: There are no images, they have different sizes, or files cannot be used; the message names
            the files. Or the first level names parts of a data set in a way that leaves a doubt.
    """
    try:
        names, left_out = image_files(folder)
    except OSError as error:
        raise BadData(f"{printable(str(error.filename))} cannot be listed: {error.strerror}") from None
    if not names:
        text = f"no images in {printable(str(folder))}: it must hold JPEG, PNG or WebP files, at any depth"
        raise BadData(f"{text}; {left_out}" if left_out.counts else text)
    layout = folder_layout(printable(str(folder)), names, needs_train=needs_train)
    rows = ImageStack(len(names), image_size=image_size, channels=channels)
    used: list[str] = []
    bad: list[str] = []
    remaining = iter(names)
    # The first picture decides on the size of the others.
    for name in remaining:
        path = f"{folder}/{name}"
        try:
            header = read_header(read_file(path, max_pixels=max_pixels))
            shape = rows.next_shape(header.shape, name=printable(path))
            rows.add(decode_image(header, shape=shape, resize=resize, max_pixels=max_pixels))
        except TooManyPixels as error:
            bad.append(f"{printable(path)} cannot be used: {error}: --max-pixels raises it")
        except InvalidImage as error:
            bad.append(f"{printable(path)} cannot be used: {error}")
        else:
            used.append(name)
            break
    if rows.shape is not None:
        rules = FileRules(shape=rows.shape, may_widen=channels is None, resize=resize, max_pixels=max_pixels)
        with closing(decoded_files(folder, list(remaining), rules)) as files:
            for file in files:
                path = printable(f"{folder}/{file.name}")
                if file.picture is not None:
                    shape = rows.next_shape(file.picture, name=path)
                if isinstance(file.pixels, str):
                    bad.append(f"{path} cannot be used: {file.pixels}")
                else:
                    rows.add(file.pixels[..., : shape.channels])
                    used.append(file.name)
    if bad and not (skip and used):
        raise BadData(_refusal(bad, len(names)))
    skipped = f"{len(bad)} of {len(names)} files cannot be used and were skipped" if bad else ""
    note = "; ".join(text for text in (rows.note, skipped, str(left_out)) if text)
    return FolderImages(rows.images, used, note, bad, layout, rows.sizes)


def _refusal(bad: Sequence[str], count: int) -> str:
    """Return the error that names the files that cannot be used."""
    advice = "repair or remove the file, or give --on-error skip"
    if len(bad) == 1:
        return f"{bad[0]} ({advice})"
    shown = [text.replace(" cannot be used: ", " (", 1) + ")" for text in bad[:MAX_NAMED]]
    more = f", and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
    return (
        f"{len(bad)} of {count} files cannot be used: {', '.join(shown)}{more}:"
        f" {advice.replace('file', 'files')}"
    )
