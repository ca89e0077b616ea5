"""The models that a server has: found on disk, verified, loaded, warmed, looked up by name and version."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from convvae_service.bundle import Bundle, BundleError, Manifest, list_models, list_versions, read_bundle
from convvae_service.engine import Engine
from convvae_service.errors import InvalidInput, NotFound, StartupError, VersionNotLoaded, Violation
from convvae_service.logs import facts
from convvae_service.manifest import Precision

__all__ = ["EngineOptions", "LoadedVersion", "ModelEntry", "Repository", "VersionEntry", "VersionState"]

_log = logging.getLogger(__name__)
_MAX_NAMES = 10
_REMEDY = "Copy the version again, export it anew, or remove its folder"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """How every engine of a server runs. `precision` None takes what each bundle has."""

    device: str = "auto"
    precision: Precision | None = None
    threads: int = 1
    max_batch_rows: int = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedVersion:
    """A model version that answers calls. `manifest_json` is made once, before the first call."""

    name: str
    version: int
    manifest: Manifest
    manifest_json: str
    engine: Engine


class VersionState(Enum):
    """How the server stands to a published version; the names are those of the wire's `VersionState`."""

    NOT_LOADED = "not loaded"
    LOADING = "loading"
    SERVING = "serving"
    FAILED = "failed"


@dataclass(slots=True)
class VersionEntry:
    """A published version. `error` says why, when it failed."""

    state: VersionState = VersionState.NOT_LOADED
    error: str = ""
    loaded: LoadedVersion | None = None


@dataclass(slots=True)
class ModelEntry:
    """A model's versions, ascending, and the one that calls without a version go to."""

    versions: dict[int, VersionEntry] = field(default_factory=dict)
    default: int | None = None


class Repository:
    """The models under one root. `load` runs in a thread while the server answers health checks."""

    def __init__(self, root: Path, *, pinned: Mapping[str, int], options: EngineOptions) -> None:
        """Look at what is published under `root`; nothing is loaded yet.

        Raises:
            StartupError: There is nothing to serve, or a pinned version is not published.
        """
        self._root = root
        self._pinned = dict(pinned)
        self._options = options
        try:
            names = list_models(root)
        except BundleError as error:
            raise StartupError(str(error)) from None
        if not names:
            raise StartupError(f"no model version is published under {str(root)!r}: export one there first")
        self.models = {
            name: ModelEntry({version: VersionEntry() for version in list_versions(root, name)})
            for name in names
        }
        for name, version in self._pinned.items():
            if name not in self.models or version not in self.models[name].versions:
                raise StartupError(
                    f"--serve {name}={version}: no such version is published under {str(root)!r}"
                )

    def load(self, *, stop: threading.Event | None = None) -> None:
        """Load the pinned or else the highest usable version of each model; give up early once `stop` is set.

        A model without a usable version is passed over, as long as another model has one.

        Raises:
            StartupError: No model has a usable version, or a pinned version is not usable.
        """
        for name, entry in self.models.items():
            pinned = self._pinned.get(name)
            for version in [pinned] if pinned else sorted(entry.versions, reverse=True):
                if stop is not None and stop.is_set():
                    return
                if self._load_version(name, version):
                    entry.default = version
                    break
                if pinned:
                    raise StartupError(
                        f"--serve {name}={version}: {entry.versions[version].error}. {_REMEDY}"
                    )
        if not self.served:
            name, entry = next(iter(self.models.items()))
            version = max(entry.versions)
            error = entry.versions[version].error
            raise StartupError(f"no usable version; model {name!r}, version {version}: {error}. {_REMEDY}")

    @property
    def served(self) -> list[LoadedVersion]:
        """The versions that calls without a version go to, by model."""
        loaded = (entry.versions[entry.default].loaded for entry in self.models.values() if entry.default)
        return [version for version in loaded if version is not None]

    def resolve(self, name: str, version: int) -> LoadedVersion:
        """Return the version to call; an empty name is the only model, version 0 the default.

        Raises:
            InvalidInput: The name is empty and there are several models, or the version is below 0.
            NotFound: No such model or version.
            VersionNotLoaded: The version is published and not loaded.
        """
        if version < 0:
            raise InvalidInput(
                [Violation("model.version", f"is {version}: 1 or above, or 0 for the default")]
            )
        entry = self.models.get(name or self.only_model())
        if entry is None:
            raise NotFound(f"no model {name[:64]!r} here: ListModels names those there are")
        if not version and entry.default is None:
            raise VersionNotLoaded(f"no version of model {name!r} could be loaded: ListModels says why")
        entry_version = entry.versions.get(version or entry.default or 0)
        if entry_version is None:
            raise NotFound(f"model {name!r} has no version {version}: ListModels names those there are")
        if entry_version.loaded is None:
            raise VersionNotLoaded(
                f"version {version} of model {name!r} is published but not loaded; serving: {entry.default}"
            )
        return entry_version.loaded

    def only_model(self) -> str:
        """Return the name that an empty name stands for.

        Raises:
            InvalidInput: There are several models.
        """
        if len(self.models) > 1:
            names = ", ".join(list(self.models)[:_MAX_NAMES]) + (
                ", …" if len(self.models) > _MAX_NAMES else ""
            )
            raise InvalidInput(
                [Violation("model.name", f"is empty, and this server has several models: {names}")]
            )
        return next(iter(self.models))

    def _load_version(self, name: str, version: int) -> bool:
        entry = self.models[name].versions[version]
        entry.state = VersionState.LOADING
        try:
            bundle: Bundle = read_bundle(self._root / name / str(version))
            engine = Engine(
                bundle,
                precision=self._options.precision,
                device=self._options.device,
                threads=self._options.threads,
            )
            engine.warm(self._options.max_batch_rows)
        except BundleError as error:
            entry.state, entry.error = VersionState.FAILED, str(error)
            _log.error(
                "model version cannot be loaded", extra=facts(model=name, version=version, error=str(error))
            )
            return False
        entry.loaded = LoadedVersion(
            name=name,
            version=version,
            manifest=bundle.manifest,
            manifest_json=bundle.manifest.to_json(),
            engine=engine,
        )
        entry.state, entry.error = VersionState.SERVING, ""
        _log.info(
            "model version loaded",
            extra=facts(model=name, version=version, precision=engine.precision, provider=engine.provider),
        )
        return True
