"""A model version in memory, and how it gets there: read, verified, loaded, warmed; closed when unused."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from convvae_service.bundle import Manifest, Precision, read_bundle
from convvae_service.engine.arena import DEFAULT_ARENAS, Arenas
from convvae_service.engine.stages import Engine

__all__ = ["EngineOptions", "LoadedVersion", "Stamp", "load_version", "stamp_of"]

# Name, size, time of change in ns and mode of each file of a version.
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """How every engine of a server runs."""

    device: str = "auto"
    threads: int = 1
    max_batch_rows: int = 64
    arenas: Arenas = DEFAULT_ARENAS


@dataclass(eq=False, kw_only=True, slots=True, weakref_slot=True)
class LoadedVersion:
    """A model version that answers calls. `manifest_json` is made once, before the first call."""

    name: str
    version: int
    manifest: Manifest
    manifest_json: str
    engine: Engine
    users: int = 0
    _on_unused: Callable[["LoadedVersion"], None] | None = None

    @contextmanager
    def used(self) -> Iterator["LoadedVersion"]:
        """Count a call on this version for the length of a `with` block."""
        self.users += 1
        try:
            yield self
        finally:
            self.users -= 1
            if not self.users and self._on_unused is not None:
                self._on_unused(self)

    def retire(self, on_unused: Callable[["LoadedVersion"], None]) -> None:
        """Call `on_unused` when the last call has ended, which may be now; no new one may be counted."""
        if self.users:
            self._on_unused = on_unused
        else:
            on_unused(self)


def load_version(
    folder: Path,
    options: EngineOptions,
    *,
    precision: Precision | None = None,
    check: Callable[[LoadedVersion], None] = lambda _: None,
) -> LoadedVersion:
    """Read, verify, load and warm the version in `folder`, and let `check` look at it.

    Args:
        folder: ROOT/<model>/<version>.
        options: How the engine runs.
        precision: Which graphs run; None takes fp32, or else the first that the bundle has.
        check: Raises StartupError for a version that the server's settings do not allow.

    Raises:
        BundleError: The version is damaged, or does not run.
        StartupError: The device cannot be used, or `check` says so.
        OSError: A file cannot be read at present.
    """
    bundle = read_bundle(folder)
    engine = Engine(
        bundle,
        precision=precision,
        device=options.device,
        threads=options.threads,
        arenas=options.arenas,
    )
    try:
        engine.warm(options.max_batch_rows)
        loaded = LoadedVersion(
            name=folder.parent.name,
            version=bundle.version,
            manifest=bundle.manifest,
            manifest_json=bundle.manifest.to_json(),
            engine=engine,
        )
        check(loaded)
    except BaseException:
        engine.close()
        raise
    return loaded


def stamp_of(folder: Path) -> Stamp | None:
    """Return what tells one state of a version's files from another, or None while that cannot be said."""
    try:
        with os.scandir(folder) as entries:
            stats = sorted((entry.name, entry.stat()) for entry in entries)
    except OSError:
        return None
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_mode) for name, stat in stats)
