"""The models of a server by name and version. It is changed on the event loop, and read from any thread."""

import threading
from collections.abc import Mapping
from pathlib import Path

from convvae_service.bundle import (
    BundleError,
    check_model_name,
    warn_once,
)
from convvae_service.errors import InvalidInput, NotFound, StartupError, VersionNotLoaded, Violation
from convvae_service.repository.entry import ModelEntry, VersionEntry
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.repository.place import find_place, names_shown
from convvae_service.settings.precision_policy import PrecisionPolicies
from convvae_service.settings.version_policy import VersionPolicies

__all__ = ["Repository", "nothing_published"]


class Repository:
    """The models of one place, by name. A `Loader` loads their versions into it.

    Attributes:
        place: Where they are published.
        aliases: Names in manifests that stand for the names of models here.
        models: The published models.
        lock: Held for each change that calls must see in one step, and while a call looks for its version.
    """

    def __init__(
        self,
        root: Path,
        *,
        pinned: Mapping[str, int],
        policies: VersionPolicies | None = None,
        precisions: PrecisionPolicies | None = None,
        model_name: str = "",
        may_be_empty: bool = False,
    ) -> None:
        """List the versions that are published at `root`; none is loaded yet.

        Args:
            root: The folder ROOT/<model>/<version>/, that of one model, or one bundle.
            pinned: The default version of some models. For the others it is the highest loaded version.
            policies: Which versions to load.
            precisions: Which of their graphs to run.
            model_name: The name of the only model; empty for the one in its manifest.
            may_be_empty: Whether the first model may be published later.

        Raises:
            StartupError: There is nothing to serve, or a setting names a model or a version that is not
                published, or one name is given to several models.
        """
        self.lock = threading.RLock()
        self.may_be_empty = may_be_empty
        self._pinned = dict(pinned)
        self._policies = policies or VersionPolicies()
        self._precisions = precisions or PrecisionPolicies()
        try:
            self.place = find_place(root, model_name)
            published = self.place.published()
        except BundleError as error:
            raise StartupError(str(error)) from None
        self.aliases = self.place.aliases
        self.models: dict[str, ModelEntry] = {}
        for name, versions in published.items():
            if self.admits(name):
                self.add(name).versions = {version: VersionEntry() for version in versions}
        if not self.models and not may_be_empty:
            raise StartupError(nothing_published(root))
        self._check_settings()

    def admits(self, name: str) -> bool:
        """Return whether a folder with versions has a name that a model may have. If not, log this once."""
        try:
            check_model_name(name)
        except BundleError as error:
            warn_once(
                "a folder of the repository is no model and is skipped",
                str(self.place.root / name),
                error=str(error),
            )
            return False
        return True

    def add(self, name: str) -> ModelEntry:
        """Add a model without versions, and return its entry."""
        entry = ModelEntry(
            policy=self._policies.of(name),
            pinned=self._pinned.get(name),
            precision=self._precisions.of(name),
        )
        self.models = dict(sorted((self.models | {name: entry}).items()))
        return entry

    @property
    def loaded(self) -> list[LoadedVersion]:
        """The loaded versions, in the order of models and versions."""
        with self.lock:
            return [
                found.loaded
                for entry in self.models.values()
                for _, found in sorted(entry.versions.items())
                if found.loaded is not None
            ]

    def tried(self) -> dict[str, dict[int, bool]]:
        """Return, for each version by model, whether its files were tried as they were then."""
        return {
            name: {version: not found.due for version, found in entry.versions.items()}
            for name, entry in self.models.items()
        }

    def resolve(self, name: str, version: int) -> LoadedVersion:
        """Return the version to call. An empty name is the only model, version 0 the default version.

        The version may be closed at any time; a call uses `lease` to keep it open.

        Raises:
            InvalidInput: The name is empty and there are several models, or the version is negative.
            NotFound: There is no such model or version.
            VersionNotLoaded: The version is published and not loaded.
        """
        with self.lock:
            return self._resolve(name, version)

    def lease(self, name: str, version: int) -> LoadedVersion:
        """Resolve a version and keep it open until its `release` is called.

        Raises:
            ServiceError: As `resolve` does.
        """
        with self.lock:
            served = self._resolve(name, version)
            served.acquire()
        return served

    def only_model(self) -> str:
        """Return the model that an empty name stands for.

        Raises:
            InvalidInput: There are several models.
            NotFound: There is no model.
        """
        if len(self.models) > 1:
            names = names_shown(self.models)
            raise InvalidInput(
                [Violation("model.name", f"is empty, and this server has several models: {names}")]
            )
        if not self.models:
            raise NotFound("no model is published here yet")
        return next(iter(self.models))

    def _resolve(self, name: str, version: int) -> LoadedVersion:
        if version < 0:
            raise InvalidInput(
                [Violation("model.version", f"is {version}, it must be >= 1, or 0 for the default")]
            )
        name = self.aliases.get(name, name) or self.only_model()
        entry = self.models.get(name)
        if entry is None:
            raise NotFound(f"no model {name[:64]!r} on this server: ListModels lists the models")
        if not version and entry.default is None and entry.pinned is not None:
            raise VersionNotLoaded(
                f"version {entry.pinned} is the default version of model {name!r} by --serve, and it is not"
                " loaded: name another version; ListModels lists those that are loaded"
            )
        if not version and entry.default is None:
            raise VersionNotLoaded(f"no version of model {name!r} could be loaded: ListModels has the reason")
        entry_version = entry.versions.get(version or entry.default or 0)
        if entry_version is None:
            raise NotFound(f"model {name!r} has no version {version}: ListModels lists its versions")
        if entry_version.loaded is None:
            raise VersionNotLoaded(
                f"version {version} of model {name!r} is published but not loaded; the default version"
                f" is {entry.default or 'not loaded either'}"
            )
        return entry_version.loaded

    def _check_settings(self) -> None:
        """Raise StartupError if a setting names a model or a version that is not published."""
        named = [(name, version, "--serve") for name, version in self._pinned.items()]
        for name, policy in self._policies.by_model.items():
            named += [(name, version, "--versions") for version in sorted(policy.listed)]
        for name, version, flag in named:
            if name not in self.models or version not in self.models[name].versions:
                raise StartupError(
                    f"{flag} {name}={version}: no such version is published under {str(self.place.root)!r}"
                )
        not_published = f"not published under {str(self.place.root)!r}"
        for flag, models in (
            ("--versions", self._policies.by_model),
            ("--precision", self._precisions.by_model),
        ):
            if unknown := sorted(set(models) - set(self.models)):
                raise StartupError(f"{flag} names the model {unknown[0]!r}, which is {not_published}")


def nothing_published(root: Path) -> str:
    """Return the message for a folder without a version."""
    return f"no model version is published under {str(root)!r}: export one there first"
