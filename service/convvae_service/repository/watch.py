"""Notices new, changed and removed model versions by looking at the folders at intervals.

Listing works wherever the files are: on network and container mounts no notifications arrive.
"""

import asyncio
import errno
import logging
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from convvae_service.bundle import MANIFEST_FILE, VERSION_NAME
from convvae_service.observability.logs import facts
from convvae_service.repository.catalog import Repository
from convvae_service.repository.entry import ModelEntry
from convvae_service.repository.loaded_version import Stamp, stamp_of
from convvae_service.repository.loader import Loader, Published

__all__ = ["Watch", "look"]

_log = logging.getLogger(__name__)
_GONE = (errno.ENOENT, errno.ENOTDIR)
# Device and inode: which folder a path leads to.
_Identity = tuple[int, int]


class Watch:
    """Lets a repository follow its folder.

    Args:
        repository: What is known.
        loader: Loads what is new.
        interval_s: Seconds between two looks.
        after_change: Called when calls may see other versions than before.
        on_error: Called when the folder could not be read.
    """

    def __init__(
        self,
        repository: Repository,
        loader: Loader,
        *,
        interval_s: float,
        after_change: Callable[[], None],
        on_error: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._loader = loader
        self._interval_s = interval_s
        self._after_change = after_change
        self._on_error = on_error
        self._identity = _identity(repository.root)
        self._complaint = ""

    async def run(self) -> None:
        """Look again and again, until cancelled; nothing that goes wrong ends it."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.look_once()
            except OSError as error:
                self._complain(error.strerror or "input or output error")
            except Exception:  # noqa: BLE001 - what follows may well succeed
                self._on_error()
                _log.exception("internal error while following the repository")
            else:
                self._complaint = ""

    async def look_once(self) -> None:
        """Look at the folder and follow what has changed.

        Raises:
            OSError: The folder cannot be read, or another, empty one is in its place.
        """
        root = self._repository.root
        published, identity = await asyncio.to_thread(look, root, self._repository.models)
        if not published and identity != self._identity:
            raise OSError(errno.ENODEV, "an empty folder has taken its place, as when a mount is lost")
        self._identity = identity
        await self._loader.follow(published, after_change=self._after_change)

    def _complain(self, complaint: str) -> None:
        self._on_error()
        # Once, not every few seconds, for as long as it lasts.
        if complaint != self._complaint:
            self._complaint = complaint
            _log.error("repository cannot be followed, all stays as it is", extra=facts(error=complaint))


def look(root: Path, known: Mapping[str, ModelEntry]) -> tuple[Published, _Identity | None]:
    """Return what is published under `root` and which folder that is; the files of tried versions stamped.

    Raises:
        OSError: A folder or a manifest can at present be neither read nor said to be absent.
    """
    identity = _identity(root)
    published: dict[str, dict[int, Stamp | None] | None] = {}
    for name in sorted(entry.name for entry in root.iterdir()):
        try:
            versions = _versions(root / name)
        except PermissionError:
            # The root of a disk has folders that are nobody's business, such as lost+found.
            if name in known:
                published[name] = None
            continue
        tried: Collection[int] = [
            version
            for version, found in (known[name].versions if name in known else {}).items()
            if not found.due
        ]
        if versions:
            published[name] = {
                version: stamp_of(root / name / str(version)) if version in tried else None
                for version in versions
            }
    return published, identity


def _versions(folder: Path) -> list[int]:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise
    return sorted(
        int(entry.name) for entry in entries if VERSION_NAME.fullmatch(entry.name) and _has_manifest(entry)
    )


def _has_manifest(folder: Path) -> bool:
    try:
        return stat.S_ISREG((folder / MANIFEST_FILE).stat().st_mode)
    except PermissionError:
        # A version, of which loading will say what is wrong.
        return True
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise


def _identity(folder: Path) -> _Identity | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
