"""How a path becomes a source of images."""

from pathlib import Path

from convvae_service.images.array_source import ArraySource
from convvae_service.images.arrays import BadArray, is_array_file, open_array
from convvae_service.images.folder_source import ImageFolder
from convvae_service.images.source import BadSource, Source

__all__ = ["open_source"]


def open_source(path: Path) -> Source:
    """Return the source at `path`: a folder of image files, an .npy or .npz array, or an idx file.

    Raises:
        BadSource: There is none, it is of another kind, damaged, or empty.
    """
    if path.is_dir():
        return ImageFolder(path)
    if not path.exists():
        raise BadSource(f"source {str(path)!r} does not exist")
    if not is_array_file(path):
        raise BadSource(
            f"{path.name} is no source: give a folder of images, an .npy or .npz file, or an idx file"
            " (.idx, or named like train-images-idx3-ubyte, perhaps .gz)"
        )
    try:
        array = open_array(path)
    except BadArray as error:
        raise BadSource(str(error)) from None
    return ArraySource(path.name, array)
