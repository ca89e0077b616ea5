import asyncio
import errno
import os
import shutil
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae_service.errors import NotFound, StartupError, VersionNotLoaded
from convvae_service.repository import watch as watch_module
from convvae_service.repository.catalog import Repository
from convvae_service.repository.entry import VersionState
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.repository.loader import Loader, VersionChange
from convvae_service.repository.loading import EngineOptions, load_version
from convvae_service.repository.place import Place
from convvae_service.repository.stamp import stamp_of
from convvae_service.repository.version_folder import VersionFolder
from convvae_service.repository.watch import Watch, look
from convvae_service.settings.version_policy import parse_version_policies
from support.tiny_bundle import LATENT_DIM, SHAPE, publish_tiny


class Followed:
    """A repository with its loader and watch, and what they reported."""

    def __init__(self, root: Path, *words: str) -> None:
        self.changes: list[tuple[str, int, str]] = []
        self.errors = 0
        self.repository = Repository(
            root, pinned={}, policies=parse_version_policies(words), may_be_empty=True
        )
        self.loader = Loader(self.repository, EngineOptions(device="cpu"), on_change=self._note)
        self.watch = Watch(
            self.repository,
            self.loader,
            interval_s=0.001,
            after_change=self._after_change,
            on_error=self._on_error,
        )

    def _note(self, change: VersionChange) -> None:
        self.changes.append((change.model, change.version, change.result))

    def _after_change(self) -> None:
        # Each change leaves something to call, as health would say.
        self.ready = {name: entry.default for name, entry in self.repository.models.items()}

    def _on_error(self) -> None:
        self.errors += 1

    async def __aenter__(self) -> "Followed":
        await self.loader.load()
        self.changes.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.loader.close()


async def until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is another task that makes it hold
            await asyncio.sleep(0.001)


def test_a_stamp_changes_with_the_files(tmp_path: Path) -> None:
    """Content, time, mode, and files that come or go each make another stamp; nothing else does."""
    folder = publish_tiny(tmp_path)
    stamps = [stamp_of(folder)]
    assert stamp_of(folder) == stamps[0]
    os.utime(folder / "encoder.onnx", ns=(1, 1))
    stamps.append(stamp_of(folder))
    (folder / "manifest.json").chmod(0o600)
    stamps.append(stamp_of(folder))
    (folder / "decoder.onnx").unlink()
    stamps.append(stamp_of(folder))
    assert len(set(stamps)) == 4
    shutil.rmtree(folder)
    assert stamp_of(folder) is None


async def test_look_finds_what_is_published(tmp_path: Path) -> None:
    """Half-written versions, files and empty folders are passed over; only tried versions are stamped."""
    publish_tiny(tmp_path, "a")
    publish_tiny(tmp_path, "a")
    publish_tiny(tmp_path, "b")
    (tmp_path / "a" / "3").mkdir()
    (tmp_path / "a" / ".tmp-1").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    async with Followed(tmp_path) as followed:
        published, _ = look(followed.repository.place, followed.repository.tried())
        assert published == {
            "a": {1: None, 2: stamp_of(tmp_path / "a" / "2")},
            "b": {1: stamp_of(tmp_path / "b" / "1")},
        }


async def test_nothing_new_changes_nothing(tmp_path: Path) -> None:
    """A look at the same files loads and unloads nothing."""
    publish_tiny(tmp_path)
    publish_tiny(tmp_path)
    async with Followed(tmp_path) as followed:
        before = followed.repository.resolve("tiny", 0)
        for _ in range(3):
            await followed.watch.look_once()
        assert followed.changes == []
        assert followed.repository.resolve("tiny", 0) is before


async def test_a_lease_keeps_a_version_open(tmp_path: Path) -> None:
    """A replaced version is closed when the last of its leases ends, and not before."""
    publish_tiny(tmp_path)
    async with Followed(tmp_path) as followed:
        served = followed.repository.lease("tiny", 0)
        assert followed.repository.lease("tiny", 1) is served
        publish_tiny(tmp_path)
        await followed.watch.look_once()
        assert followed.repository.resolve("tiny", 0).version == 2
        with pytest.raises(VersionNotLoaded, match="published but not loaded; the default version is 2"):
            followed.repository.resolve("tiny", 1)
        served.release()
        await asyncio.sleep(0)
        assert followed.changes == [("tiny", 2, "loaded")]
        # The last call may end in any thread.
        await asyncio.to_thread(served.release)
        await until(lambda: len(followed.changes) > 1)
        assert followed.changes == [("tiny", 2, "loaded"), ("tiny", 1, "unloaded")]
        # It is closed in a thread; what has not begun is given up when the loader ends.
        async with asyncio.timeout(20):
            while served.engine._encoder is not None:  # noqa: ASYNC110 - there is nothing to be woken by
                await asyncio.sleep(0.01)


async def test_a_removed_model_stays_open_for_its_calls(tmp_path: Path) -> None:
    """New calls do not find it; the one that runs on it keeps it until it ends."""
    publish_tiny(tmp_path, "gone")
    publish_tiny(tmp_path, "other")
    async with Followed(tmp_path) as followed:
        served = followed.repository.lease("gone", 0)
        shutil.rmtree(tmp_path / "gone")
        await followed.watch.look_once()
        assert followed.ready == {"other": 1}
        with pytest.raises(NotFound, match="no model 'gone' on this server"):
            followed.repository.resolve("gone", 0)
        await asyncio.sleep(0)
        assert followed.changes == []
        (mean, _) = served.engine.encode.run((np.zeros((1, *SHAPE.as_tuple), np.uint8),))
        assert mean.shape == (1, LATENT_DIM)
        served.release()
        await until(lambda: bool(followed.changes))
        assert followed.changes == [("gone", 1, "unloaded")]


async def test_a_load_that_is_given_up_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain does not wait for a version that loads, and one that is loaded after all is not swapped in."""
    publish_tiny(tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    def wait(folder: VersionFolder, options: EngineOptions, **more: Any) -> LoadedVersion:
        begun.set()
        assert go_on.wait(20)
        return load_version(folder, options, **more)

    async with Followed(tmp_path) as followed:
        publish_tiny(tmp_path)
        monkeypatch.setattr("convvae_service.repository.loading.load_version", wait)
        watching = asyncio.create_task(followed.watch.run())
        await until(begun.is_set)
        watching.cancel()
        await asyncio.wait((watching,), timeout=5)
        assert watching.cancelled()
        assert followed.loader.loading
        assert followed.repository.models["tiny"].versions[2].state is VersionState.NOT_LOADED
        go_on.set()
        await followed.loader.close()
        assert not followed.loader.loading
        assert followed.repository.resolve("", 0).version == 1
        assert followed.changes == []


async def test_a_lost_mount_unloads_nothing(tmp_path: Path) -> None:
    """An empty folder in the place of another, and a root that is gone, leave all as it was."""
    root = tmp_path / "models"
    publish_tiny(root)
    async with Followed(root) as followed:
        root.rename(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError):
            await followed.watch.look_once()
        root.mkdir()
        with pytest.raises(OSError, match="an empty folder is in its place"):
            await followed.watch.look_once()
        assert followed.repository.resolve("", 0).version == 1
        root.rmdir()
        (tmp_path / "elsewhere").rename(root)
        await followed.watch.look_once()
        assert followed.changes == []
        # The same folder, emptied: that was meant.
        shutil.rmtree(root / "tiny")
        await followed.watch.look_once()
        await until(lambda: bool(followed.changes))
        assert followed.changes == [("tiny", 1, "unloaded")]
        assert followed.ready == {}


@pytest.mark.parametrize("reason", [errno.EIO, errno.ESTALE])
async def test_a_failing_disk_unloads_nothing_and_is_said_once(
    tmp_path: Path, reason: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A manifest that can for the moment not be read is not taken for one that has gone."""
    folder = publish_tiny(tmp_path)
    original = Path.stat
    failing = True

    def stat(path: Path, **options: bool) -> os.stat_result:
        if failing and path == folder / "manifest.json":
            raise OSError(reason, os.strerror(reason))
        return original(path, **options)

    async with Followed(tmp_path) as followed:
        monkeypatch.setattr(Path, "stat", stat)
        watching = asyncio.create_task(followed.watch.run())
        await until(lambda: followed.errors >= 3)
        assert followed.repository.resolve("", 0).version == 1
        failing = False
        publish_tiny(tmp_path)
        await until(lambda: ("tiny", 1, "unloaded") in followed.changes)
        watching.cancel()
        assert followed.changes == [("tiny", 2, "loaded"), ("tiny", 1, "unloaded")]
    said = [record for record in caplog.records if "cannot be listed" in record.message]
    assert len(said) == 1


async def test_a_file_that_cannot_be_read_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the disk says nothing about the version, whose files need not change for another attempt."""
    publish_tiny(tmp_path)
    async with Followed(tmp_path) as followed:
        publish_tiny(tmp_path)
        with monkeypatch.context() as broken:

            def read(*_: object, **__: object) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            broken.setattr("convvae_service.repository.loading.load_version", read)
            await followed.watch.look_once()
        found = followed.repository.models["tiny"].versions[2]
        assert found.error == "cannot be read: Input/output error"
        await followed.watch.look_once()
        assert followed.repository.resolve("", 0).version == 2
        assert found.error == ""


async def test_a_fault_in_loading_is_not_the_callers_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody thought of fails the version; its traceback is in the log alone."""
    publish_tiny(tmp_path)
    async with Followed(tmp_path) as followed:
        publish_tiny(tmp_path)

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr("convvae_service.repository.loading.load_version", fail)
        await followed.watch.look_once()
        assert followed.repository.models["tiny"].versions[2].error == (
            "internal error, described in the server's log"
        )
        assert followed.repository.resolve("", 0).version == 1
        assert "secret" in caplog.text


async def test_the_event_loop_runs_on_while_a_version_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading waits in a thread: calls are answered and health is asked meanwhile."""
    publish_tiny(tmp_path)
    async with Followed(tmp_path) as followed:
        publish_tiny(tmp_path)
        loop = asyncio.get_running_loop()
        seen: list[int] = []

        def wait_for_the_loop(folder: VersionFolder, options: EngineOptions, **more: Any) -> LoadedVersion:
            # Comes back only if the event loop answers in the middle of the load.
            answer = asyncio.run_coroutine_threadsafe(ask(), loop)
            seen.append(answer.result(timeout=10))
            return load_version(folder, options, **more)

        async def ask() -> int:
            assert followed.repository.models["tiny"].versions[2].state.name == "LOADING"
            return followed.repository.resolve("", 0).version

        monkeypatch.setattr("convvae_service.repository.loading.load_version", wait_for_the_loop)
        await followed.watch.look_once()
        assert seen == [1]
        assert followed.repository.resolve("", 0).version == 2


async def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose folder cannot be listed stays as it is; one that never could is nobody's business."""
    publish_tiny(tmp_path)
    (tmp_path / "lost+found").mkdir()
    original = watch_module._versions

    def refuse(place: Place, name: str, known: Collection[int]) -> list[int]:
        if name in ("tiny", "lost+found"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original(place, name, known)

    async with Followed(tmp_path) as followed:
        monkeypatch.setattr(watch_module, "_versions", refuse)
        publish_tiny(tmp_path, "other")
        await followed.watch.look_once()
        assert followed.changes == [("other", 1, "loaded")]
        assert followed.repository.resolve("tiny", 0).version == 1


def test_listed_versions_must_be_published(tmp_path: Path) -> None:
    """A version that a flag names and nobody published is a mistake that the start tells."""
    publish_tiny(tmp_path)
    with pytest.raises(StartupError) as caught:
        Repository(tmp_path, pinned={}, policies=parse_version_policies(["tiny=1", "tiny=7"]))
    assert str(caught.value) == f"--versions tiny=7: no such version is published under {str(tmp_path)!r}"


async def test_a_list_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    """A list for all models that none of them has ends the start, unless models may come later."""
    publish_tiny(tmp_path)
    repository = Repository(tmp_path, pinned={}, policies=parse_version_policies(["7"]))
    loader = Loader(repository, EngineOptions(device="cpu"))
    with pytest.raises(StartupError, match="no version to serve: --versions names no version"):
        await loader.load()
    await loader.close()
    async with Followed(tmp_path, "2") as followed:
        assert followed.repository.loaded == []
        publish_tiny(tmp_path)
        await followed.watch.look_once()
        assert followed.ready == {"tiny": 2}
