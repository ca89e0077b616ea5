"""The way of a version into memory: read, verify, load, warm and check it."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from convvae_service.bundle import Bundle, BundleError, Precision
from convvae_service.engine.arena import DEFAULT_ARENAS, Arenas
from convvae_service.engine.stages import Engine
from convvae_service.errors import StartupError
from convvae_service.observability.logs import facts
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.repository.stamp import Stamp, stamp_of
from convvae_service.repository.trial import DEFAULT_LIMITS, LoadLimits, too_slow
from convvae_service.repository.version_folder import VersionFolder

__all__ = ["EngineOptions", "LoadResult", "load_version", "try_to_load"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """The options of every engine of a server.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Number of threads of one run.
        max_batch_rows: Maximum rows of one run; a GPU is warmed up to this size.
        arenas: Memory that each graph keeps between runs.
        limits: Time to load and warm a version, and memory of its trial.
    """

    device: str = "auto"
    threads: int = 1
    max_batch_rows: int = 64
    arenas: Arenas = DEFAULT_ARENAS
    limits: LoadLimits = DEFAULT_LIMITS


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadResult:
    """The result of an attempt to load a version: the version, or an error.

    `stamp` is that of the files before they were read, None if they should be tried again. `fatal` says that
    no version can be loaded on this server, whatever its files. `untried` says that the version was not
    loaded, since it must pass a trial first.
    """

    stamp: Stamp | None
    loaded: LoadedVersion | None = None
    error: str = ""
    fatal: bool = False
    untried: bool = False


class UntriedVersion(Exception):
    """The graphs of a version may take far more memory than their files, so it needs a trial."""


class ChangedVersion(Exception):
    """The files of a version are not those that passed its trial."""


def load_version(
    folder: VersionFolder,
    options: EngineOptions,
    *,
    precision: Precision | None = None,
    check: Callable[[LoadedVersion], None] = lambda _: None,
    tried: str | None = None,
) -> LoadedVersion:
    """Read, verify, load, warm and check the version in `folder`.

    Args:
        folder: The version's folder.
        options: The options of its engine.
        precision: The graphs to run; None takes fp32 if the bundle has it, or else its first precision.
        check: Raises StartupError for a version that the server's settings do not allow.
        tried: The checksum of the manifest that passed a trial; None if there was no trial.

    Raises:
        UntriedVersion: There was no trial, and this version needs one.
        ChangedVersion: The version is another one than the version that was tried.
        BundleError: The version is damaged, does not run, or takes longer than its limit.
        StartupError: The device cannot be used, or `check` raised it.
        OSError: A file cannot be read now.
    """
    bundle = folder.read()
    _check_trial(bundle, precision, tried)
    engine = Engine(
        bundle,
        precision=precision,
        device=options.device,
        threads=options.threads,
        arenas=options.arenas,
    )
    try:
        _warm(engine, options)
        loaded = LoadedVersion(
            name=folder.name,
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


def try_to_load(
    folder: VersionFolder,
    options: EngineOptions,
    precision: Precision | None,
    check: Callable[[LoadedVersion], None],
    tried: str | None = None,
) -> LoadResult:
    """Load a version as `load_version` does, and return the result instead of raising an error.

    An error is returned as text: an exception would keep the engine alive, by its traceback.
    """
    # Taken before reading, so that files that change meanwhile are tried again.
    stamp = stamp_of(folder.path)
    try:
        loaded = load_version(folder, options, precision=precision, check=check, tried=tried)
    except UntriedVersion:
        return LoadResult(stamp=None, untried=True)
    except ChangedVersion:
        return LoadResult(stamp=None, error="its files changed while it was loaded")
    except BundleError as error:
        return LoadResult(stamp=stamp, error=str(error))
    except StartupError as error:
        return LoadResult(stamp=stamp, error=str(error), fatal=True)
    except OSError as error:
        # A failing disk or network says nothing about the version: try it again.
        return LoadResult(stamp=None, error=f"cannot be read: {error.strerror or 'input or output error'}")
    except Exception:  # noqa: BLE001 - the versions that serve must go on after any error
        _log.exception("model version cannot be loaded", extra=facts(folder=str(folder.path)))
        return LoadResult(stamp=stamp, error="internal error, described in the server's log")
    return LoadResult(stamp=stamp, loaded=loaded)


def _check_trial(bundle: Bundle, precision: Precision | None, tried: str | None) -> None:
    if tried is None:
        wanted = [precision] if precision is not None else bundle.manifest.precisions[:1]
        if not bundle.growing.isdisjoint(wanted):
            raise UntriedVersion
    elif tried != bundle.sha256:
        raise ChangedVersion


def _warm(engine: Engine, options: EngineOptions) -> None:
    """Warm an engine, and interrupt it at the limit of time."""
    expired = threading.Event()

    def interrupt() -> None:
        expired.set()
        engine.interrupt()

    timer = threading.Timer(options.limits.timeout_s, interrupt)
    timer.daemon = True
    timer.start()
    try:
        engine.warm(options.max_batch_rows)
    except BundleError:
        if not expired.is_set():
            raise
    finally:
        timer.cancel()
    if expired.is_set():
        raise BundleError(too_slow(options.limits))
