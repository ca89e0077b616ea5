"""An attempt to load one version: a trial in a process of its own, and then the load in a thread.

Neither holds up others: a trial is ended at its limit of time, and a thread that does not come back is left.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from convvae_service.bundle import Precision
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.repository.loading import EngineOptions, LoadResult, try_to_load
from convvae_service.repository.stamp import Stamp, stamp_of
from convvae_service.repository.trial import Trial, TrialResult, too_slow
from convvae_service.repository.version_folder import VersionFolder

__all__ = ["Attempt", "is_loading"]

T = TypeVar("T")
# A load is interrupted at its limit. Beyond this time it is left.
_MARGIN_S = 5.0
_THREAD = "models-load"


class Attempt:
    """An attempt to load the version in `folder`.

    Attributes:
        trying: Whether a trial runs now. It can be cancelled at any time, and a load cannot.
        threads: The threads that work for this attempt, also after it was cancelled.
    """

    def __init__(
        self,
        folder: VersionFolder,
        options: EngineOptions,
        precision: Precision | None,
        check: Callable[[LoadedVersion], None],
    ) -> None:
        self.trying = False
        self.threads: list[Future[Any]] = []
        self._folder = folder
        self._options = options
        self._precision = precision
        self._check = check

    async def run(self, *, try_first: bool) -> LoadResult:
        """Load the version and return the result.

        Args:
            try_first: Whether the version must pass a trial. If not, it needs one only if its graphs may take
                much memory.
        """
        if not try_first:
            result = await self._load(None, None)
            if not result.untried:
                return result
        stamp, tried = await self._try()
        if tried.error:
            stamp = None if tried.again else stamp
            return LoadResult(stamp=stamp, error=tried.error, fatal=tried.fatal)
        return await self._load(tried.sha256, stamp)

    async def _try(self) -> tuple[Stamp | None, TrialResult]:
        trial = Trial(self._folder, self._options.limits, precision=self._precision, every=False)
        # Taken before reading, so that files that change meanwhile are tried again.
        work = self._in_thread(lambda: (stamp_of(self._folder.path), trial.run()))
        self.trying = True
        try:
            return await asyncio.wrap_future(work)
        finally:
            self.trying = False
            trial.stop()

    async def _load(self, tried: str | None, stamp: Stamp | None) -> LoadResult:
        """Load the version in a thread, whose result is dropped if it comes too late."""
        work = self._in_thread(
            lambda: try_to_load(self._folder, self._options, self._precision, self._check, tried)
        )
        limits = self._options.limits
        try:
            async with asyncio.timeout(limits.timeout_s + _MARGIN_S):
                return await asyncio.shield(asyncio.wrap_future(work))
        except TimeoutError:
            work.add_done_callback(_drop)
            self.threads.remove(work)
            return LoadResult(stamp=stamp, error=too_slow(limits))
        except asyncio.CancelledError:
            work.add_done_callback(_drop)
            raise

    def _in_thread(self, function: Callable[[], T]) -> Future[T]:
        """Call a function in a thread of its own. A process ends without it."""
        work: Future[T] = Future()
        work.set_running_or_notify_cancel()

        def call() -> None:
            try:
                work.set_result(function())
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                work.set_exception(error)

        threading.Thread(target=call, name=_THREAD, daemon=True).start()
        self.threads.append(work)
        return work


def is_loading() -> bool:
    """Return whether a thread of any attempt has not come back."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


def _drop(work: Future[LoadResult]) -> None:
    if work.exception() is None and (loaded := work.result().loaded) is not None:
        loaded.engine.close()
