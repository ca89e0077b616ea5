"""The loader of a repository: it loads the wanted versions beside those that serve, and closes the others.

The models are followed side by side, so a version that loads slowly delays its own model alone. The change
that calls see is made on the event loop, in one step.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any

from convvae_service.errors import StartupError
from convvae_service.observability.logs import facts
from convvae_service.repository.attempt import Attempt
from convvae_service.repository.catalog import Repository
from convvae_service.repository.entry import ModelEntry, VersionEntry, VersionState
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.repository.loading import EngineOptions, LoadResult
from convvae_service.repository.stamp import Stamp

__all__ = ["Loader", "Published", "VersionChange"]

# The published versions by model, each with the stamp of its files or None if it is unknown. A model whose
# folder cannot be read now has None.
Published = Mapping[str, Mapping[int, Stamp | None] | None]

# The versions that are tried and loaded at the same time while the server serves.
_ATTEMPTS = 2

_log = logging.getLogger(__name__)
_REMEDY = "Copy the version again, export it again, or remove its folder"


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionChange:
    """A change of a version: `result` is `loaded`, `failed`, or `unloaded` (after its last call)."""

    model: str
    version: int
    result: str
    loaded: LoadedVersion | None = None


class Loader:
    """Keeps the loaded versions of a repository in line with the published ones."""

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
            repository: The published versions; it holds the loaded ones too.
            options: The options of the engines.
            check: Raises StartupError for a version that the server's settings do not allow.
            on_change: Called on the event loop after each change.
        """
        self._repository = repository
        self._options = options
        self._check = check
        self._on_change = on_change
        self._closing = futures.ThreadPoolExecutor(1, thread_name_prefix="models")
        self._slots = asyncio.Semaphore(_ATTEMPTS)
        # By model: what follows its versions, and the version that is tried or loaded now with its attempt.
        self._following: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, tuple[int, Attempt, asyncio.Task[LoadResult]]] = {}
        self._threads: set[futures.Future[Any]] = set()
        self._closed = False

    async def load(self, *, stop: threading.Event | None = None) -> None:
        """Load the wanted versions of each model.

        A model without a usable version is skipped if another model has one.

        Args:
            stop: An event that ends the loading before the next version.

        Raises:
            StartupError: No model has a usable version, a pinned version is not usable, or the device or the
                settings do not allow a version.
        """
        models = self._repository.models
        for name, entry in models.items():
            while (version := entry.next_due) is not None:
                if stop is not None and stop.is_set():
                    return
                result = await self._load_version(name, version, entry, try_first=False)
                if result is None:
                    return
                if result.fatal:
                    raise StartupError(result.error)
                if version == entry.pinned and entry.default is None:
                    raise StartupError(
                        f"--serve {name}={version}: {entry.versions[version].error}. {_REMEDY}"
                    )
        if not self._repository.loaded and not self._repository.may_be_empty:
            raise StartupError(_first_error(models))

    def follow(self, published: Published, *, after_change: Callable[[], None]) -> None:
        """Follow a change of the published versions, in tasks; `settled` waits for them.

        New versions are loaded beside those that serve and then swapped in. Versions that are removed or no
        longer wanted are closed after their last call. A trial ends when its version is removed or a newer
        one is published.

        Args:
            published: The versions that are published now.
            after_change: Called when calls may see other versions than before.
        """
        repository = self._repository
        for name in [name for name in repository.models if name not in published]:
            _log.info("model removed", extra=facts(model=name))
            with repository.lock:
                for found in repository.models.pop(name).versions.values():
                    self._unload(found)
            if name in self._following:
                self._following.pop(name).cancel()
            after_change()
        for name, stamps in published.items():
            if stamps is None:
                continue
            entry = repository.models.get(name) or repository.add(name)
            with repository.lock:
                _note(entry, stamps)
            self._give_up_obsolete(name, entry)
            task = self._following.get(name)
            if task is None or task.done():
                self._following[name] = asyncio.create_task(self._follow_model(name, entry, after_change))

    async def settled(self) -> None:
        """Wait until all changes are followed."""
        while running := [task for task in self._following.values() if not task.done()]:
            await asyncio.wait(running)

    async def give_up(self) -> None:
        """Follow no change on, and end all attempts. The result of a load that goes on is dropped."""
        running = [*self._following.values(), *(task for _, _, task in self._attempts.values())]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    @property
    def loading(self) -> bool:
        """Whether a thread tries or loads a version now."""
        now = [work for _, attempt, _ in self._attempts.values() for work in attempt.threads]
        return any(not work.done() for work in (*self._threads, *now))

    async def close(self) -> None:
        """Wait until no version is being loaded or closed; neither can be interrupted."""
        self._closed = True
        await self.give_up()
        await asyncio.to_thread(futures.wait, self._threads)
        await asyncio.to_thread(self._closing.shutdown, cancel_futures=True)

    async def _follow_model(self, name: str, entry: ModelEntry, after_change: Callable[[], None]) -> None:
        try:
            while entry.next_due is not None:
                async with self._slots:
                    if (version := entry.next_due) is None:
                        break
                    result = await self._load_version(name, version, entry, try_first=True)
                if result is not None:
                    after_change()
            self._unload_unwanted(name, entry)
            after_change()
        except Exception:  # noqa: BLE001 - the other models go on, and this one at the next listing
            _log.exception("internal error while following a model", extra=facts(model=name))

    def _give_up_obsolete(self, name: str, entry: ModelEntry) -> None:
        """End the trial of a version that is not the next one to load any more."""
        if name not in self._attempts:
            return
        version, attempt, task = self._attempts[name]
        if attempt.trying and entry.next_due != version:
            task.cancel()

    async def _load_version(
        self, name: str, version: int, entry: ModelEntry, *, try_first: bool
    ) -> LoadResult | None:
        """Try to load a version, and let it serve if it can. Return None if the attempt was given up."""
        found = entry.versions[version]
        before = found.state
        if found.loaded is None:
            found.state = VersionState.LOADING
        folder = self._repository.place.folder(name, version)
        attempt = Attempt(folder, self._options, entry.precision, self._check)
        work = asyncio.create_task(attempt.run(try_first=try_first))
        self._attempts[name] = (version, attempt, work)
        try:
            await asyncio.wait((work,))
        finally:
            work.cancel()
            del self._attempts[name]
            self._threads = {each for each in (*self._threads, *attempt.threads) if not each.done()}
            found.state = before
        if work.cancelled():
            return None
        result = work.result()
        is_news = result.stamp is not None or result.error != found.error
        found.due, found.stamp, found.error = False, result.stamp, result.error
        if result.loaded is not None:
            self._swap_in(result.loaded, entry)
        else:
            found.state = VersionState.FAILED if found.loaded is None else VersionState.SERVING
            self._report_failure(name, version, result.error, is_news=is_news)
        return result

    def _report_failure(self, name: str, version: int, error: str, *, is_news: bool) -> None:
        # An error that says nothing about the files comes again at each listing, and is logged once.
        if is_news:
            _log.error(
                "model version cannot be loaded", extra=facts(model=name, version=version, error=error)
            )
        self._on_change(VersionChange(model=name, version=version, result="failed"))

    def _swap_in(self, loaded: LoadedVersion, entry: ModelEntry) -> None:
        """Let a version serve, in place of the one with the same number if there is one."""
        name, version, engine = loaded.name, loaded.version, loaded.engine
        found = entry.versions[version]
        with self._repository.lock:
            replaced, found.loaded, found.state = found.loaded, loaded, VersionState.SERVING
            before = entry.default
            changed = entry.choose_default()
        _log.info(
            "model version loaded",
            extra=facts(model=name, version=version, precision=engine.precision, provider=engine.provider),
        )
        self._on_change(VersionChange(model=name, version=version, result="loaded", loaded=loaded))
        if changed:
            _report_default(name, entry, before)
        if replaced is not None:
            self._retire(replaced)

    def _unload_unwanted(self, name: str, entry: ModelEntry) -> None:
        """Unload removed and unwanted versions in one step, so that calls always find a default version."""
        with self._repository.lock:
            wanted = entry.wanted
            for version, found in list(entry.versions.items()):
                if found.removed:
                    del entry.versions[version]
                if found.removed or version not in wanted:
                    self._unload(found)
            before = entry.default
            changed = entry.choose_default()
        if changed:
            _report_default(name, entry, before)

    def _unload(self, found: VersionEntry) -> None:
        """Give a version no new calls, and close it when its last call has ended."""
        if found.loaded is None:
            return
        retired, found.loaded, found.state, found.due = found.loaded, None, VersionState.NOT_LOADED, True
        self._retire(retired)

    def _retire(self, version: LoadedVersion) -> None:
        loop = asyncio.get_running_loop()

        def close_soon(unused: LoadedVersion) -> None:
            # The last call may end in any thread, and after the event loop.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._close, unused)

        version.retire(close_soon)

    def _close(self, unused: LoadedVersion) -> None:
        if self._closed:
            return
        self._closing.submit(unused.engine.close)
        _log.info("model version unloaded", extra=facts(model=unused.name, version=unused.version))
        self._on_change(
            VersionChange(model=unused.name, version=unused.version, result="unloaded", loaded=unused)
        )


def _report_default(name: str, entry: ModelEntry, before: int | None) -> None:
    """Log that calls without a version get another one. The first default version is no change."""
    if before is not None:
        _log.info("default version changed", extra=facts(model=name, version=entry.default, before=before))


def _note(entry: ModelEntry, stamps: Mapping[int, Stamp | None]) -> None:
    """Note the published versions of a model in its entry."""
    for version, found in entry.versions.items():
        found.removed = version not in stamps
    for version, stamp in stamps.items():
        found = entry.versions.setdefault(version, VersionEntry())
        # A version whose files had no stamp when it was tried is tried again as soon as they have one.
        found.due = found.due or (stamp is not None and stamp != found.stamp)


def _first_error(models: Mapping[str, ModelEntry]) -> str:
    """Return why no version is loaded: the error of the newest version that failed."""
    for name, entry in models.items():
        for version, found in sorted(entry.versions.items(), reverse=True):
            if found.error:
                return f"no usable version: model {name!r}, version {version}: {found.error}. {_REMEDY}"
    return "no version to serve: --versions names no version that is published"
