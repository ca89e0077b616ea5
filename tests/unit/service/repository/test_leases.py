"""Leases from many threads while versions are swapped, added and removed."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from convvae_service.engine.stages import Engine
from convvae_service.errors import NotFound, VersionNotLoaded
from convvae_service.repository.catalog import Repository
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.repository.loader import Loader, VersionChange
from convvae_service.repository.loading import EngineOptions, LoadResult
from convvae_service.repository.version_folder import VersionFolder
from support.tiny_bundle import publish_tiny


class FakeEngine:
    """An engine that knows how often it was closed."""

    precision = "fp32"
    provider = "CPUExecutionProvider"

    def __init__(self) -> None:
        self.times_closed = 0

    def close(self) -> None:
        self.times_closed += 1


def loaded(name: str = "tiny", number: int = 1) -> LoadedVersion:
    nothing: Any = None
    engine = cast(Engine, FakeEngine())
    return LoadedVersion(name=name, version=number, manifest=nothing, manifest_json="", engine=engine)


def engine_of(version: LoadedVersion) -> FakeEngine:
    return cast(FakeEngine, version.engine)


def run_all(*acts: Callable[[], None]) -> None:
    """Run functions in threads of their own, and raise the first error of one."""
    failures: list[BaseException] = []

    def run(act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_a_version_without_users_is_let_go_at_once() -> None:
    """Once, and by the thread that retires it."""
    version = loaded()
    unused: list[LoadedVersion] = []
    version.acquire()
    version.release()
    assert unused == []
    version.retire(unused.append)
    assert unused == [version]


def test_the_last_user_lets_a_retired_version_go() -> None:
    """The users before it do not, nor the users of a version that serves on."""
    version = loaded()
    unused: list[LoadedVersion] = []
    for _ in range(3):
        version.acquire()
    version.release()
    version.retire(unused.append)
    version.release()
    assert unused == []
    version.release()
    assert unused == [version]


def test_a_version_that_is_retired_as_its_users_leave_is_let_go_once() -> None:
    """Whichever thread is the last."""
    for _ in range(500):
        version = loaded()
        unused: list[LoadedVersion] = []
        barrier = threading.Barrier(4)
        for _ in range(3):
            version.acquire()

        def release(version: LoadedVersion = version, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(20)
            version.release()

        def retire(
            version: LoadedVersion = version,
            barrier: threading.Barrier = barrier,
            unused: list[LoadedVersion] = unused,
        ) -> None:
            barrier.wait(20)
            version.retire(unused.append)

        run_all(release, release, release, retire)
        assert unused == [version]


def test_a_version_is_found_and_leased_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No swap can come in between: it needs the lock, which another thread cannot take at that moment."""
    publish_tiny(tmp_path)
    repository = Repository(tmp_path, pinned={})
    repository.models["tiny"].versions[1].loaded = loaded()
    taken: list[bool] = []
    original = LoadedVersion.acquire

    def acquire(version: LoadedVersion) -> None:
        run_all(lambda: taken.append(repository.lock.acquire(blocking=False)))
        original(version)

    monkeypatch.setattr(LoadedVersion, "acquire", acquire)
    assert repository.lease("tiny", 1)._users == 1
    assert taken == [False]


class Swapping:
    """A repository whose versions exist only in memory, and all versions that were ever loaded."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stamps: dict[str, dict[int, Any]] = {"tiny": {1: "first"}, "other": {1: "first"}}
        self.versions: list[LoadedVersion] = []
        self.changes: Counter[str] = Counter()
        publish_tiny(root)
        publish_tiny(root, "other")
        monkeypatch.setattr("convvae_service.repository.loader.Attempt", self._attempt)
        self.repository = Repository(root, pinned={})
        self.loader = Loader(self.repository, EngineOptions(device="cpu"), on_change=self._note)

    def _attempt(self, folder: VersionFolder, *_: Any) -> SimpleNamespace:
        async def run(**_: bool) -> LoadResult:
            version = loaded(folder.name, folder.version)
            self.versions.append(version)
            return LoadResult(stamp=self.stamps[version.name].get(version.version), loaded=version)

        return SimpleNamespace(run=run, trying=False, threads=[])

    def _note(self, change: VersionChange) -> None:
        self.changes[change.result] += 1

    async def follow(self, **stamps: Any) -> None:
        """Follow a change of the published versions."""
        self.stamps = stamps
        self.loader.follow(cast(Any, stamps), after_change=lambda: None)
        await self.loader.settled()


async def test_calls_always_find_an_open_default_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While files change, and versions and other models come and go: no closed engine, no missing default."""
    swapping = Swapping(tmp_path, monkeypatch)
    await swapping.loader.load()
    stop = threading.Event()
    calls: Counter[int] = Counter()

    def call_default() -> None:
        while not stop.is_set():
            served = swapping.repository.lease("tiny", 0)
            assert engine_of(served).times_closed == 0
            calls[served.version] += 1
            # Another lease of the same version, if it still serves, is released in between.
            with contextlib.suppress(VersionNotLoaded, NotFound):
                swapping.repository.lease("tiny", served.version).release()
            assert engine_of(served).times_closed == 0
            served.release()

    def call_other() -> None:
        while not stop.is_set():
            with contextlib.suppress(NotFound, VersionNotLoaded):
                served = swapping.repository.lease("other", 0)
                assert engine_of(served).times_closed == 0
                served.release()

    callers = asyncio.create_task(
        asyncio.to_thread(run_all, call_default, call_default, call_default, call_other)
    )
    try:
        for turn in range(60):
            stamp = f"stamp {turn}"
            await swapping.follow(tiny={1: stamp}, other={1: stamp})
            await swapping.follow(tiny={1: stamp, 2: stamp})
            await swapping.follow(tiny={2: stamp}, other={1: stamp})
            await swapping.follow(tiny={2: f"{stamp} again"}, other={1: stamp})
    finally:
        stop.set()
        await callers
    assert min(calls[1], calls[2]) > 0
    serving = swapping.repository.loaded
    assert [(version.name, version.version) for version in serving] == [("other", 1), ("tiny", 2)]
    # Each version that was replaced is closed, in a thread, exactly once.
    async with asyncio.timeout(20):
        while swapping.changes["unloaded"] < len(swapping.versions) - 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    swapping.loader._closing.shutdown()
    for version in swapping.versions:
        assert engine_of(version).times_closed == (version not in serving)
        assert version._users == 0
    await swapping.loader.close()


async def test_a_lease_that_ends_after_the_loader_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last calls may end when the server has stopped: nothing is closed, and nothing is raised."""
    swapping = Swapping(tmp_path, monkeypatch)
    await swapping.loader.load()
    served = swapping.repository.lease("tiny", 0)
    await swapping.follow(tiny={2: "second"}, other={1: "first"})
    await swapping.loader.close()
    await asyncio.to_thread(served.release)
    await asyncio.sleep(0)
    assert engine_of(served).times_closed == 0


def test_a_lease_that_ends_after_the_event_loop_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane that is late finds the loop closed, and goes on."""
    found = SimpleNamespace()

    async def replace() -> None:
        swapping = Swapping(tmp_path, monkeypatch)
        await swapping.loader.load()
        found.served = swapping.repository.lease("tiny", 0)
        await swapping.follow(tiny={2: "second"}, other={1: "first"})
        await swapping.loader.close()

    asyncio.run(replace())
    found.served.release()
    assert engine_of(found.served).times_closed == 0


def test_an_unknown_version_takes_no_lease(tmp_path: Path) -> None:
    """A call that is refused counts as no user."""
    publish_tiny(tmp_path)
    repository = Repository(tmp_path, pinned={})
    with pytest.raises(NotFound):
        repository.lease("tiny", 7)
    with pytest.raises(VersionNotLoaded):
        repository.lease("tiny", 1)
