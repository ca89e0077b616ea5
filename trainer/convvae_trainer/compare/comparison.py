"""A comparison of models: everything that its report says."""

from dataclasses import dataclass
from typing import Any

from convvae_service.bundle import ImageShape
from convvae_trainer.compare.claims import Claim
from convvae_trainer.compare.latent_scatter import LatentScatter
from convvae_trainer.compare.measure import FeatureClassifier, ModelReport, TestSample

__all__ = ["TERMS", "Comparison"]

TERMS = {"distortion": "reconstruction term alone", "rate": "KL term alone", "both": "both terms"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Everything that the report says. `unjudged` says why there is no classifier, or is empty."""

    dataset: str
    split: str
    image: ImageShape
    chosen: TestSample
    seed: int
    judge: FeatureClassifier | None
    unjudged: str
    systems: list[ModelReport]
    planes: list[LatentScatter]
    plane_epochs: int
    claims: list[Claim]
    date: str
    command: str
    libraries: dict[str, str]

    def to_json_object(self) -> dict[str, Any]:
        """Return all numbers of the report."""
        judge = self.judge
        return {
            "command": self.command,
            "date": self.date,
            "libraries": self.libraries,
            "dataset": self.dataset,
            "split": self.split,
            "image": list(self.image.as_tuple),
            "images": len(self.chosen.images),
            "shown": self.chosen.rows[self.chosen.shown].tolist(),
            "seed": self.seed,
            "classifier": {"missing": self.unjudged}
            if judge is None
            else {
                "accuracy": judge.accuracy,
                "frechet_training_images": judge.reference,
                "training_images": judge.reference_images,
            },
            "systems": [system.to_json_object() for system in self.systems],
            "scatter_epochs": self.plane_epochs if self.planes else None,
            "scatter": [plane.to_json_object() for plane in self.planes],
            "claims": [claim.to_json_object() for claim in self.claims],
        }
