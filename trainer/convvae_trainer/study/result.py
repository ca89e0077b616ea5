"""The result of a study: which runs are finished, and the figures of each system over its seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convvae_service.bundle import Manifest
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.spread import Spread
from convvae_trainer.study.folder import StudyFolder
from convvae_trainer.study.hparams import METRICS
from convvae_trainer.study.plan import StudyPlan

__all__ = ["StudyResult"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """The end of a study.

    Args:
        folder: The folder of the study.
        plan: Its plan.
        manifests: The manifests of the models of finished runs, by the name of the run.
        failed: Why runs failed, by name.
        comparison: The report, or None where none was written.
    """

    folder: StudyFolder
    plan: StudyPlan
    manifests: Mapping[str, Manifest]
    failed: Mapping[str, str]
    comparison: Comparison | None

    def seeds(self, system: str) -> int:
        """Return the number of finished runs of a system."""
        return len(self._metrics(system))

    def figures(self, system: str) -> dict[str, Spread]:
        """Return the figures of a system's test images, by name, without those that a run lacks."""
        metrics = self._metrics(system)
        return {
            name: Spread(tuple(float(values[name]) for values in metrics))
            for name in METRICS
            if metrics and all(isinstance(values.get(name), int | float) for values in metrics)
        }

    def _metrics(self, system: str) -> list[Mapping[str, Any]]:
        return [
            self.manifests[run.name].training.metrics
            for run in self.plan.runs
            if run.system == system and run.name in self.manifests
        ]

    def to_json_object(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return {
            "folder": str(self.folder.path),
            "report": None if self.comparison is None else str(self.folder.report),
            "runs": {
                run.name: {
                    "system": run.system,
                    "objective": run.config.objective,
                    "seed": run.config.seed,
                    "varied": dict(run.varied),
                    "model": str(self.folder.models / run.name) if run.name in self.manifests else None,
                    "error": self.failed.get(run.name),
                }
                for run in self.plan.runs
            },
            "systems": {
                system: {
                    "seeds": self.seeds(system),
                    **{
                        name: {"mean": figure.mean, "deviation": figure.deviation}
                        for name, figure in self.figures(system).items()
                    },
                }
                for system in self.plan.systems
            },
            "claims": [] if self.comparison is None else self.comparison.to_json_object()["claims"],
        }
