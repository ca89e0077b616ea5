"""A published model: its versions, how the server stands to each, and which of them it should have."""

from dataclasses import dataclass, field
from enum import Enum

from convvae_service.bundle import Precision
from convvae_service.repository.loaded_version import LoadedVersion, Stamp
from convvae_service.settings.version_policy import VersionPolicy

__all__ = ["ModelEntry", "VersionEntry", "VersionState"]


class VersionState(Enum):
    """How the server stands to a published version; the names are those of the wire's `VersionState`."""

    NOT_LOADED = "not loaded"
    LOADING = "loading"
    SERVING = "serving"
    FAILED = "failed"


@dataclass(slots=True)
class VersionEntry:
    """A published version.

    `error` says why it failed; of one that serves, why its files, which have changed, do not serve instead.
    `due` until its files have been tried as they are now. `stamp` is of the files when they last were.
    """

    state: VersionState = VersionState.NOT_LOADED
    error: str = ""
    loaded: LoadedVersion | None = None
    due: bool = True
    stamp: Stamp | None = None
    removed: bool = False


@dataclass(slots=True)
class ModelEntry:
    """A model's versions, and the one that calls without a version go to.

    With `pinned` that is this version or none; otherwise the highest that is loaded. `precision` is that of
    the graphs to run; None takes what each version has.
    """

    versions: dict[int, VersionEntry] = field(default_factory=dict)
    default: int | None = None
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    pinned: int | None = None
    precision: Precision | None = None

    @property
    def wanted(self) -> list[int]:
        """The versions to have, the newest first after the pinned one.

        Those that cannot be loaded are passed over; one that is yet to be tried counts as usable.
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
        # A pinned version takes its place even while it is missing: no other is served instead.
        return wanted + others[: self.policy.latest - (self.pinned is not None)]

    @property
    def next_due(self) -> int | None:
        """The version to try next, or None when every version that is wanted is loaded."""
        return next((version for version in self.wanted if self.versions[version].due), None)

    def choose_default(self) -> bool:
        """Let calls without a version go to the right one, and say whether it is another than before."""
        loaded = [version for version, found in self.versions.items() if found.loaded is not None]
        before = self.default
        if self.pinned is None:
            self.default = max(loaded, default=None)
        else:
            self.default = self.pinned if self.pinned in loaded else None
        return self.default != before
