"""A published model: its versions, their states, and which of them to load."""

from dataclasses import dataclass, field
from enum import Enum

from convvae_service.bundle import Precision
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.repository.stamp import Stamp
from convvae_service.settings.version_policy import VersionPolicy

__all__ = ["ModelEntry", "VersionEntry", "VersionState"]


class VersionState(Enum):
    """The state of a published version on this server. The names are those of `VersionState` in the proto."""

    NOT_LOADED = "not loaded"
    LOADING = "loading"
    SERVING = "serving"
    FAILED = "failed"


@dataclass(slots=True)
class VersionEntry:
    """A published version.

    Args:
        state: The state on this server.
        error: Why the version failed. For a version that serves: why its changed files cannot replace it.
        loaded: The version in memory.
        due: Whether the files as they are now have not been tried yet.
        stamp: The stamp of the files when they were last tried.
        removed: Whether the files are gone.
    """

    state: VersionState = VersionState.NOT_LOADED
    error: str = ""
    loaded: LoadedVersion | None = None
    due: bool = True
    stamp: Stamp | None = None
    removed: bool = False


@dataclass(slots=True)
class ModelEntry:
    """A model: its versions, and the default version for calls that name none.

    Args:
        versions: The published versions.
        default: The default version; None if there is none to call.
        policy: Which versions to load.
        pinned: The only version that may be the default; None makes it the highest loaded version.
        precision: The precision of the graphs to run; None takes fp32, or the first that a version has.
    """

    versions: dict[int, VersionEntry] = field(default_factory=dict)
    default: int | None = None
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    pinned: int | None = None
    precision: Precision | None = None

    @property
    def wanted(self) -> list[int]:
        """The versions to load: the pinned one, and then the others from the newest on.

        Versions that cannot be loaded are skipped. A version that has not been tried yet counts as usable.
        """
        usable = {
            version
            for version, found in self.versions.items()
            if not found.removed and (found.due or found.loaded is not None)
        }
        wanted = [version for version in usable if version == self.pinned]
        others = [v for v in self.policy.candidates(usable) if v != self.pinned]
        if self.policy.latest is None:
            return wanted + others
        # A pinned version keeps its place while it is missing: no other version is served instead.
        return wanted + others[: self.policy.latest - (self.pinned is not None)]

    @property
    def next_due(self) -> int | None:
        """The version to try next, or None when all wanted versions have been tried."""
        return next((version for version in self.wanted if self.versions[version].due), None)

    def choose_default(self) -> bool:
        """Set the default version, and return whether it has changed."""
        loaded = [version for version, found in self.versions.items() if found.loaded is not None]
        before = self.default
        if self.pinned is None:
            self.default = max(loaded, default=None)
        else:
            self.default = self.pinned if self.pinned in loaded else None
        return self.default != before
