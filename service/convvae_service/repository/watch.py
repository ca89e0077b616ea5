"""The watch over a repository: it lists the folders at intervals to find new, changed and removed versions.

Listing works on every disk. Network and container mounts send no notifications.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from convvae_service.observability.logs import facts
from convvae_service.repository.catalog import Repository
from convvae_service.repository.loader import Loader, Published
from convvae_service.repository.place import Place
from convvae_service.repository.stamp import Stamp, stamp_of

__all__ = ["Watch", "look"]

_log = logging.getLogger(__name__)
_GONE = (errno.ENOENT, errno.ENOTDIR)
# Nobody may read it, or it is a link to itself.
_CLOSED = (errno.EACCES, errno.EPERM, errno.ELOOP)
# Device and inode of a folder: another folder at the same path has another identity.
_Identity = tuple[int, int]


class Watch:
    """Keeps a repository up to date with its folder.

    Args:
        repository: The repository as the server knows it.
        loader: Loads new versions.
        interval_s: Seconds between two listings.
        after_change: Called when calls may see other versions than before.
        on_error: Called when a listing or its changes failed.
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
        self._identity = _identity(repository.place.root)
        self._last_error = ""

    async def run(self) -> None:
        """List the folder at intervals until cancelled. No error ends this."""
        try:
            await self._run()
        finally:
            await self._loader.give_up()

    async def look_once(self) -> None:
        """List the folder once, and follow the changes to their end.

        Raises:
            OSError: As `_look` does.
        """
        await self._look()
        await self._loader.settled()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._look()
            except OSError as error:
                self._report(error.strerror or "input or output error")
            except Exception:  # noqa: BLE001 - the next listing may succeed
                self._on_error()
                _log.exception("internal error while following the repository")
            else:
                self._last_error = ""

    async def _look(self) -> None:
        """List the folder once, and begin to follow the changes.

        Raises:
            OSError: The folder cannot be read, or an empty folder is in its place.
        """
        found, identity = await asyncio.to_thread(look, self._repository.place, self._repository.tried())
        published = {name: versions for name, versions in found.items() if self._repository.admits(name)}
        if not published and identity != self._identity:
            raise OSError(errno.ENODEV, "an empty folder is in its place; the mount may be lost")
        self._identity = identity
        self._loader.follow(published, after_change=self._after_change)

    def _report(self, error: str) -> None:
        self._on_error()
        # Log an error that lasts once, not at each listing.
        if error != self._last_error:
            self._last_error = error
            _log.error("repository cannot be listed: versions stay as they are", extra=facts(error=error))


def look(place: Place, known: Mapping[str, Mapping[int, bool]]) -> tuple[Published, _Identity | None]:
    """Return the published versions of a place, and the identity of its folder.

    Args:
        place: The place.
        known: The versions that the server knows, by model, and whether each was tried. The files of those
            that were are stamped.

    Raises:
        OSError: It cannot be said now whether a folder or a manifest exists.
    """
    identity = _identity(place.root)
    published: dict[str, dict[int, Stamp | None] | None] = {}
    for name in place.names(known=known):
        tried = known.get(name, {})
        try:
            versions = _versions(place, name, tried)
        except OSError as error:
            if error.errno not in _CLOSED:
                raise
            # Skip private folders, such as lost+found in the root of a disk.
            if name in known:
                published[name] = None
            continue
        if versions:
            published[name] = {
                version: stamp_of(place.folder(name, version).path) if tried.get(version) else None
                for version in versions
            }
    return published, identity


def _versions(place: Place, name: str, known: Collection[int]) -> list[int]:
    try:
        return place.versions(name, known=known)
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _identity(folder: Path) -> _Identity | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
