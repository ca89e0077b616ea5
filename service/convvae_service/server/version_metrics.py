"""Metrics of model versions: which are loaded, and what became of the others."""

import contextlib

from convvae_service.calls.runner import CallRunner
from convvae_service.calls.state import State
from convvae_service.observability.metrics import Metrics
from convvae_service.repository.catalog import Repository
from convvae_service.repository.loader import VersionChange

__all__ = ["VersionMetrics"]


class VersionMetrics:
    """Counts the changes of a repository's versions. Those before the server serves are not reloads."""

    def __init__(self, metrics: Metrics, repository: Repository, runner: CallRunner) -> None:
        self._metrics = metrics
        self._repository = repository
        self._runner = runner

    def add(self, change: VersionChange) -> None:
        """Count a change, and show the loaded versions as they are now."""
        if change.result == "failed":
            self._metrics.load_failures.labels(change.model).inc()
        if self._runner.state is not State.STARTING:
            self._metrics.reloads.labels(change.model, change.result).inc()
        if change.loaded is None:
            return
        engine = change.loaded.engine
        labels = (change.model, str(change.version), engine.precision, engine.provider)
        # A version whose files changed is loaded again under its number: the old one goes, the number stays.
        if any((v.name, v.version) == (change.model, change.version) for v in self._repository.loaded):
            self._metrics.model_info.labels(*labels).set(1)
        else:
            with contextlib.suppress(KeyError):
                self._metrics.model_info.remove(*labels)
