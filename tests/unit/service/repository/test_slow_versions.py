"""Versions that take too long to load: they hold up no other version."""

import asyncio
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from convvae_service.bundle import BundleError
from convvae_service.engine.stages import Engine
from convvae_service.repository import loading
from convvae_service.repository.attempt import Attempt
from convvae_service.repository.catalog import Repository
from convvae_service.repository.entry import VersionState
from convvae_service.repository.loader import Loader
from convvae_service.repository.loading import EngineOptions, load_version
from convvae_service.repository.trial import LoadLimits
from convvae_service.repository.version_folder import VersionFolder
from convvae_service.repository.watch import Watch
from support.hostile_version import compute_for_hours, take_memory
from support.tiny_bundle import publish_tiny
from support.version_folder import version_at

LIMITS = LoadLimits(timeout_s=30, max_bytes=512 << 20)


def ignore() -> None:
    """A change that nobody needs to know."""


def state(repository: Repository, version: int) -> VersionState:
    return repository.models["slow"].versions[version].state


async def until_default(repository: Repository, name: str, version: int) -> None:
    async with asyncio.timeout(20):
        while repository.models[name].default != version:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_other_models_and_newer_versions_go_on(tmp_path: Path) -> None:
    """While a version computes for hours: another model, and then a newer version of the same one."""
    root = tmp_path / "models"
    publish_tiny(root, "slow")
    publish_tiny(root, "other")
    repository = Repository(root, pinned={})
    loader = Loader(repository, EngineOptions(device="cpu", limits=LIMITS))
    await loader.load()
    watch = Watch(repository, loader, interval_s=0.02, after_change=ignore, on_error=ignore)
    watching = asyncio.create_task(watch.run())
    staged = compute_for_hours(publish_tiny(tmp_path / "staged", "slow"))
    staged.rename(root / "slow" / "2")
    await asyncio.sleep(1)
    assert state(repository, 2) is VersionState.LOADING
    publish_tiny(root, "other")
    await until_default(repository, "other", 2)
    publish_tiny(root, "slow")
    await until_default(repository, "slow", 3)
    assert state(repository, 2) is VersionState.NOT_LOADED
    assert not loader.loading
    # A version that is removed is given up too.
    compute_for_hours(publish_tiny(tmp_path / "staged", "slow")).rename(root / "slow" / "4")
    await asyncio.sleep(0.5)
    assert loader.loading
    shutil.rmtree(root / "slow" / "4")
    async with asyncio.timeout(10):
        while loader.loading:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    # And so is one that is tried when the server stops.
    compute_for_hours(publish_tiny(tmp_path / "staged", "slow")).rename(root / "slow" / "5")
    await asyncio.sleep(0.5)
    started_s = time.monotonic()
    watching.cancel()
    await asyncio.wait((watching,))
    await loader.close()
    assert time.monotonic() - started_s < 5


async def test_a_start_passes_over_a_version_that_takes_all_memory(tmp_path: Path) -> None:
    """Such graphs are tried first at the start too; the next lower version is loaded."""
    publish_tiny(tmp_path)
    take_memory(publish_tiny(tmp_path))
    repository = Repository(tmp_path, pinned={})
    loader = Loader(repository, EngineOptions(device="cpu", limits=LIMITS))
    await loader.load()
    assert repository.models["tiny"].default == 1
    assert "needs more than 512 MiB" in repository.models["tiny"].versions[2].error
    await loader.close()


async def test_a_load_that_does_not_come_back_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of a thread that comes back later is dropped, and its engine closed."""
    publish_tiny(tmp_path)
    go_on, closed = threading.Event(), threading.Event()
    monkeypatch.setattr("convvae_service.repository.attempt._MARGIN_S", 0.1)

    def wait(folder: VersionFolder, options: EngineOptions, **more: Any) -> Any:
        assert go_on.wait(20)
        return load_version(folder, options, **more)

    monkeypatch.setattr(loading, "load_version", wait)
    monkeypatch.setattr(Engine, "close", lambda _: closed.set())
    options = EngineOptions(device="cpu", limits=LoadLimits(timeout_s=0.1))
    attempt = Attempt(version_at(tmp_path / "tiny" / "1"), options, None, lambda _: None)
    result = await attempt.run(try_first=False)
    assert result.error.startswith("did not load and run within 0.1 s")
    assert attempt.threads == []
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 20)


def test_a_warm_up_ends_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is interrupted in ONNX Runtime, and the error is that of the limit."""
    warm, interrupted = Engine.warm, threading.Event()

    def slow(engine: Engine, rows: int) -> None:
        assert interrupted.wait(20)
        warm(engine, rows)

    def interrupt(engine: Engine) -> None:
        for session in (engine._encoder, engine._decoder):
            assert session is not None
            session.interrupt()
        interrupted.set()

    monkeypatch.setattr(Engine, "warm", slow)
    monkeypatch.setattr(Engine, "interrupt", interrupt)
    options = EngineOptions(device="cpu", limits=LoadLimits(timeout_s=0.1))
    with pytest.raises(BundleError, match=r"did not load and run within 0\.1 s"):
        load_version(version_at(publish_tiny(tmp_path)), options)
