"""Loads the versions of a repository that are wanted, beside those that serve, and closes the others.

Versions are loaded and closed in threads; what calls see changes on the event loop, at once.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from convvae_service.bundle import BundleError, Precision
from convvae_service.errors import StartupError
from convvae_service.observability.logs import facts
from convvae_service.repository.catalog import Repository
from convvae_service.repository.entry import ModelEntry, VersionEntry, VersionState
from convvae_service.repository.loaded_version import (
    EngineOptions,
    LoadedVersion,
    Stamp,
    load_version,
    stamp_of,
)

__all__ = ["Loader", "Published", "VersionChange"]

# By model and version, the state of the files, or None where it is unknown; None for a model whose folder
# cannot be read at present.
Published = Mapping[str, Mapping[int, Stamp | None] | None]

_log = logging.getLogger(__name__)
_REMEDY = "Copy the version again, export it anew, or remove its folder"


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionChange:
    """What became of a version: `loaded`, `failed`, or `unloaded` after its last call. For metrics."""

    model: str
    version: int
    result: str
    loaded: LoadedVersion | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attempt:
    """How loading went. `fatal` when it is the server that cannot do it, whatever the version."""

    stamp: Stamp | None
    loaded: LoadedVersion | None = None
    error: str = ""
    fatal: bool = False


class Loader:
    """Brings a repository's loaded versions in line with what is published."""

    def __init__(
        self,
        repository: Repository,
        options: EngineOptions,
        *,
        check: Callable[[LoadedVersion], None] = lambda _: None,
        on_change: Callable[[VersionChange], None] = lambda _: None,
    ) -> None:
        """Take over the loading of `repository`.

        Args:
            repository: What to load, and where it is then found.
            options: How engines run.
            check: Raises StartupError for a version that the server's settings do not allow.
            on_change: Called on the event loop after each change.
        """
        self._repository = repository
        self._options = options
        self._check = check
        self._on_change = on_change
        # One version is loaded at a time; the second thread closes what is no longer used.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="models")
        self._attempt: Future[_Attempt] | None = None
        self._closing: set[asyncio.Future[None]] = set()
        self._closed = False

    async def load(self, *, stop: threading.Event | None = None) -> None:
        """Load what is wanted of each model; give up early once `stop` is set.

        A model without a usable version is passed over, as long as another model has one.

        Raises:
            StartupError: No model has a usable version, a pinned version is not usable, or the device or the
                settings do not allow one.
        """
        models = self._repository.models
        for name, entry in models.items():
            while (version := entry.next_due) is not None:
                if stop is not None and stop.is_set():
                    return
                await self._load_version(name, version, entry, starting=True)
                if version == entry.pinned and entry.default is None:
                    raise StartupError(
                        f"--serve {name}={version}: {entry.versions[version].error}. {_REMEDY}"
                    )
        if not self._repository.loaded and not self._repository.may_be_empty:
            for name, entry in models.items():
                for version, found in sorted(entry.versions.items(), reverse=True):
                    if found.error:
                        raise StartupError(
                            f"no usable version; model {name!r}, version {version}: {found.error}. {_REMEDY}"
                        )
            raise StartupError("no version to serve: --versions lists none of those that are published")

    async def follow(self, published: Published, *, after_change: Callable[[], None]) -> None:
        """Load what is new beside what serves, swap, and close what has gone or is no longer wanted.

        Args:
            published: What there is now.
            after_change: Called when calls may see other versions than before.
        """
        repository = self._repository
        for name in [name for name in repository.models if name not in published]:
            _log.info("model removed", extra=facts(model=name))
            for found in repository.models.pop(name).versions.values():
                self._unload(found)
            after_change()
        for name, stamps in published.items():
            if stamps is None:
                continue
            entry = repository.models.get(name) or repository.add(name)
            _note(entry, stamps)
            while (version := entry.next_due) is not None:
                await self._load_version(name, version, entry)
                after_change()
            # The default moves in the same step in which others go, so that there is always one to call.
            wanted = entry.wanted
            for version, found in list(entry.versions.items()):
                if found.removed:
                    del entry.versions[version]
                if found.removed or version not in wanted:
                    self._unload(found)
            self._choose_default(name, entry)
            after_change()

    @property
    def loading(self) -> bool:
        """Whether a thread is loading a version."""
        return self._attempt is not None and not self._attempt.done()

    async def close(self) -> None:
        """Wait for what is being loaded or closed; neither can be interrupted."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def _load_version(
        self, name: str, version: int, entry: ModelEntry, *, starting: bool = False
    ) -> None:
        found = entry.versions[version]
        before = found.state
        if found.loaded is None:
            found.state = VersionState.LOADING
        folder = self._repository.root / name / str(version)
        try:
            self._attempt = self._threads.submit(
                _attempt, folder, self._options, entry.precision, self._check
            )
            attempt = await asyncio.wrap_future(self._attempt)
        except asyncio.CancelledError:
            found.state = before
            raise
        self._attempt = None
        found.due, found.stamp, found.error = False, attempt.stamp, attempt.error
        if attempt.fatal and starting:
            raise StartupError(attempt.error)
        if attempt.loaded is None:
            found.state = VersionState.FAILED if found.loaded is None else VersionState.SERVING
            _log.error(
                "model version cannot be loaded",
                extra=facts(model=name, version=version, error=attempt.error),
            )
            self._on_change(VersionChange(model=name, version=version, result="failed"))
            return
        replaced, found.loaded, found.state = found.loaded, attempt.loaded, VersionState.SERVING
        engine = attempt.loaded.engine
        _log.info(
            "model version loaded",
            extra=facts(model=name, version=version, precision=engine.precision, provider=engine.provider),
        )
        self._on_change(VersionChange(model=name, version=version, result="loaded", loaded=attempt.loaded))
        self._choose_default(name, entry)
        if replaced is not None:
            replaced.retire(self._close)

    def _choose_default(self, name: str, entry: ModelEntry) -> None:
        before = entry.default
        if entry.choose_default() and before is not None:
            _log.info(
                "default version changed", extra=facts(model=name, version=entry.default, before=before)
            )

    def _unload(self, found: VersionEntry) -> None:
        """Take a version from new calls; it is closed when those on it have ended."""
        if found.loaded is None:
            return
        retired, found.loaded, found.state, found.due = found.loaded, None, VersionState.NOT_LOADED, True
        retired.retire(self._close)

    def _close(self, unused: LoadedVersion) -> None:
        if self._closed:
            return
        closing = asyncio.get_running_loop().run_in_executor(self._threads, unused.engine.close)
        # The event loop itself keeps only weak references.
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        _log.info("model version unloaded", extra=facts(model=unused.name, version=unused.version))
        self._on_change(
            VersionChange(model=unused.name, version=unused.version, result="unloaded", loaded=unused)
        )


def _note(entry: ModelEntry, stamps: Mapping[int, Stamp | None]) -> None:
    """Enter what is published of a model now."""
    for version, found in entry.versions.items():
        found.removed = version not in stamps
    for version, stamp in stamps.items():
        found = entry.versions.setdefault(version, VersionEntry())
        # What could not be stamped when it was tried is tried again as soon as it can be.
        found.due = found.due or (stamp is not None and stamp != found.stamp)


def _attempt(
    folder: Path,
    options: EngineOptions,
    precision: Precision | None,
    check: Callable[[LoadedVersion], None],
) -> _Attempt:
    """Try to load a version. Errors come back as text: an exception would keep what it was raised in."""
    # Taken first: files that change while they are read are tried again.
    stamp = stamp_of(folder)
    try:
        return _Attempt(stamp=stamp, loaded=load_version(folder, options, precision=precision, check=check))
    except BundleError as error:
        return _Attempt(stamp=stamp, error=str(error))
    except StartupError as error:
        return _Attempt(stamp=stamp, error=str(error), fatal=True)
    except OSError as error:
        # A disk or a network that fails says nothing about the version: it is tried again.
        return _Attempt(stamp=None, error=f"cannot be read: {error.strerror or 'input or output error'}")
    except Exception:  # noqa: BLE001 - whatever it is, the versions that serve go on
        _log.exception("model version cannot be loaded", extra=facts(folder=str(folder)))
        return _Attempt(stamp=stamp, error="internal error, described in the server's log")
