"""The result of a comparison: everything that the report states."""

from dataclasses import asdict, dataclass
from typing import Any

from convvae_service.bundle import ImageShape
from convvae_trainer.compare.claim import Claim
from convvae_trainer.compare.feature_classifier import FeatureClassifier
from convvae_trainer.compare.figures import figures_json
from convvae_trainer.compare.latent_scatter import LatentScatter
from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.compare.precisions import PrecisionFigures
from convvae_trainer.compare.sample import TestSample
from convvae_trainer.compare.system import System
from convvae_trainer.data.trained_on import SeenCounts

__all__ = ["Comparison"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Everything that the report states.

    `left_out` counts for each model the test images that it was trained on; no model is measured on them.
    `class_names` has the names of the labels 0, 1 and so on, if they are known. `systems` has the models that
    were trained alike, but for the seed. `scatters` has the 2-D models of one seed or more. `no_classifier`
    says why there is no classifier, or is empty. `precisions` has the versions with several.
    """

    dataset: str
    split: str
    left_out: SeenCounts
    class_names: tuple[str, ...] | None
    image: ImageShape
    sample: TestSample
    seed: int
    classifier: FeatureClassifier | None
    no_classifier: str
    systems: list[System]
    precisions: list[PrecisionFigures]
    scatters: list[LatentScatter]
    scatter_epochs: int
    claims: list[Claim]
    date: str
    command: str
    libraries: dict[str, str]

    @property
    def models(self) -> list[ModelReport]:
        """The models of all systems, system by system."""
        return [member for system in self.systems for member in system.members]

    @property
    def shown_scatters(self) -> list[LatentScatter]:
        """The 2-D models that are shown in the picture: those of the first seed."""
        return [scatter for scatter in self.scatters if scatter.seed == self.scatters[0].seed]

    def to_json_object(self) -> dict[str, Any]:
        """Return all numbers of the report as JSON types."""
        return {
            "command": self.command,
            "date": self.date,
            "libraries": self.libraries,
            "dataset": self.dataset,
            "split": self.split,
            "left_out": self.left_out,
            "image": list(self.image.as_tuple),
            "images": len(self.sample.images),
            "class_names": self.class_names,
            "shown": self.sample.rows[self.sample.shown].tolist(),
            "seed": self.seed,
            "classifier": self._classifier_json(),
            "systems": [
                {**system.to_json_object(), "figures": figures_json(system)} for system in self.systems
            ],
            "models": [model.to_json_object() for model in self.models],
            "precisions": [asdict(figures) for figures in self.precisions],
            "scatter_epochs": self.scatter_epochs if self.scatters else None,
            "scatter": [scatter.to_json_object() for scatter in self.scatters],
            "claims": [claim.to_json_object() for claim in self.claims],
        }

    def _classifier_json(self) -> dict[str, Any]:
        if self.classifier is None:
            return {"missing": self.no_classifier}
        return {
            "accuracy": self.classifier.accuracy,
            "frechet_training_images": self.classifier.reference,
            "training_images": self.classifier.reference_images,
        }
