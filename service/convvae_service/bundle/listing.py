"""The models and versions that are published in a repository, `ROOT/<model>/<version>/`.

A version is a folder with a manifest. Many may write into a repository, so each list has a maximum length,
and an odd folder costs one line of the log.
"""

import errno
import heapq
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from convvae_service.bundle.errors import BundleError
from convvae_service.bundle.names import VERSION_NAME
from convvae_service.printable import printable

__all__ = [
    "MANIFEST_FILE",
    "folder_names",
    "is_version",
    "list_models",
    "list_versions",
    "published_versions",
    "reason",
    "warn_once",
]

MANIFEST_FILE = "manifest.json"
# The longest lists: folders of a repository, and versions of a model.
MAX_FOLDERS = 10_000
MAX_VERSIONS = 1000
_MAX_WARNINGS = 100
_log = logging.getLogger(__name__)
_warnings: set[tuple[str, str]] = set()


def list_models(root: Path) -> list[str]:
    """Return the names of the models under `root` that have a published version, sorted.

    Raises:
        BundleError: `root` is not a folder, or cannot be read.
    """
    try:
        names = folder_names(root)
    except FileNotFoundError:
        raise BundleError(f"model repository {str(root)!r} does not exist") from None
    except NotADirectoryError:
        raise BundleError(f"model repository {str(root)!r} is not a folder") from None
    except (OSError, RuntimeError) as error:
        raise BundleError(f"model repository {str(root)!r} cannot be read: {reason(error)}") from None
    return [name for name in names if list_versions(root, name)]


def list_versions(root: Path, model: str) -> list[int]:
    """Return the published versions of `model`, ascending. A folder without a manifest does not count."""
    try:
        return published_versions(root / model, surely=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, RuntimeError) as error:
        # The root of a disk has folders that only the system may read, such as lost+found.
        warn_once(
            "a folder of the repository cannot be read and is skipped",
            str(root / model),
            folder=model,
            error=reason(error),
        )
        return []


def folder_names(root: Path, *, known: Collection[str] = ()) -> list[str]:
    """Return the names of the folders under `root`, sorted. Links count; files do not.

    Args:
        root: The folder of the repository.
        known: Names that are returned first, however many folders there are.

    Raises:
        OSError: The folder cannot be listed.
    """
    names = heapq.nsmallest(MAX_FOLDERS + 1, _folders(root), key=lambda name: (name not in known, name))
    if len(names) > MAX_FOLDERS:
        warn_once(
            "the repository has too many folders: the others are skipped", str(root), folders=MAX_FOLDERS
        )
    return sorted(names[:MAX_FOLDERS])


def published_versions(folder: Path, *, known: Collection[int] = (), surely: bool = True) -> list[int]:
    """Return the versions in a model's folder, ascending: the highest ones, if there are very many.

    Args:
        folder: ROOT/<model>.
        known: Versions that are returned in any case if they are there.
        surely: Whether it is an error if the disk cannot say that a version is there. If not, the version
            counts, so that reading it reports the error.

    Raises:
        OSError: The folder cannot be listed, or the disk cannot say now whether a version is there.
    """
    numbers = (int(name) for name in _folders(folder) if VERSION_NAME.fullmatch(name))
    highest = heapq.nlargest(MAX_VERSIONS + 1, numbers)
    if len(highest) > MAX_VERSIONS:
        warn_once(
            "a model has too many versions: the lower ones are skipped",
            str(folder),
            model=folder.name,
            versions=MAX_VERSIONS,
        )
    candidates = sorted({*highest[:MAX_VERSIONS], *known})
    return [version for version in candidates if _is_there(folder / str(version), surely=surely)]


def is_version(folder: Path) -> bool:
    """Return whether a folder has a manifest of any kind: reading it says what is wrong with it.

    Raises:
        OSError: The disk cannot say so now.
    """
    try:
        # A link to nothing counts too.
        (folder / MANIFEST_FILE).lstat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        if error.errno not in (errno.EACCES, errno.ELOOP):
            raise
    return True


def warn_once(message: str, about: str, **facts: object) -> None:
    """Log a warning, unless it was logged before. After 100 warnings a last one says that no more follow.

    Args:
        message: The message.
        about: Its subject.
        facts: The facts of the log entry; text is made printable.
    """
    if (message, about) in _warnings or len(_warnings) > _MAX_WARNINGS:
        return
    _warnings.add((message, about))
    if len(_warnings) > _MAX_WARNINGS:
        _log.warning("odd folders of the repository are too many: further ones are skipped without a line")
        return
    shown = {key: printable(fact) if isinstance(fact, str) else fact for key, fact in facts.items()}
    _log.warning(message, extra={"facts": shown})


def reason(error: Exception) -> str:
    """Return why a file or folder cannot be read."""
    # A loop of links is a RuntimeError in some versions of Python.
    return str(getattr(error, "strerror", None) or error)


def _folders(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:
                # Looking into it reports the error.
                is_folder = True
            if is_folder:
                yield entry.name


def _is_there(folder: Path, *, surely: bool) -> bool:
    try:
        return is_version(folder)
    except OSError:
        if surely:
            raise
        return True
