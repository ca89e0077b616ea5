"""A model version in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from convvae_service.bundle import Manifest
from convvae_service.engine.stages import Engine

__all__ = ["LoadedVersion"]


@dataclass(eq=False, kw_only=True, slots=True, weakref_slot=True)
class LoadedVersion:
    """A model version that answers calls. `manifest_json` is the manifest as text, made once."""

    name: str
    version: int
    manifest: Manifest
    manifest_json: str
    engine: Engine
    users: int = 0
    _on_unused: Callable[["LoadedVersion"], None] | None = None

    @contextmanager
    def used(self) -> Iterator["LoadedVersion"]:
        """Count one user of this version for the duration of a `with` block."""
        self.users += 1
        try:
            yield self
        finally:
            self.users -= 1
            if not self.users and self._on_unused is not None:
                self._on_unused(self)

    def retire(self, on_unused: Callable[["LoadedVersion"], None]) -> None:
        """Call `on_unused` when the last user has ended, at once if there is none. Give it no new users."""
        if self.users:
            self._on_unused = on_unused
        else:
            on_unused(self)
