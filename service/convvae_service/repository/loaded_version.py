"""A model version in memory."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

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
    _users: int = 0
    _on_unused: Callable[["LoadedVersion"], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def acquire(self) -> None:
        """Count one more user. Any thread may call this, until the version is retired."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Count one user less. The last one of a retired version lets it go."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            on_unused = self._on_unused
        if on_unused is not None:
            on_unused(self)

    def retire(self, on_unused: Callable[["LoadedVersion"], None]) -> None:
        """Take no new users, and call `on_unused` when the last one has ended, at once if there is none.

        The call may come from the thread of the last user.
        """
        with self._lock:
            self._on_unused = on_unused
            if self._users:
                return
        on_unused(self)
