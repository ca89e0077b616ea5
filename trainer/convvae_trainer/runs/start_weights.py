"""Weights that a new run starts from, in place of random ones: those of a run or of a published model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from convvae_service.bundle import ImageShape
from convvae_trainer.data.trained_on import Fingerprints
from convvae_trainer.errors import BadConfig
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.record import WeightsOrigin
from convvae_trainer.settings.config import SETTINGS, Config
from convvae_trainer.settings.declaration import Panel
from convvae_trainer.settings.layers import Layer

__all__ = ["NETWORK_SETTINGS", "StartWeights"]

NETWORK_SETTINGS = tuple(
    name for name, setting in SETTINGS.items() if setting.declaration.panel is Panel.NETWORKS
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StartWeights:
    """The weights of trained networks.

    Args:
        origin: Where they come from.
        image: The shape of the images that the networks take.
        objective: The objective that trained them.
        likelihood: The likelihood of their pixels.
        has_rate: Whether the encoder returns a distribution; that of an autoencoder returns a point.
        settings: The settings of the networks by name, as far as they are known.
        tensors: The weights by their name in a checkpoint, without its prefix, such as
            `model.encoder.head.weight`.
        trained_on: The fingerprints of the images that they were trained on; None: they are not known.
    """

    origin: WeightsOrigin
    image: ImageShape
    objective: str
    likelihood: str
    has_rate: bool
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    trained_on: Fingerprints | None

    @property
    def defaults(self) -> Layer:
        """The settings of a run that starts from these weights, where it gives no others."""
        values = {**self.settings, "objective": self.objective, "likelihood": self.likelihood}
        return Layer(values, str(self.origin), is_fixed=True)

    def check_settings(self, config: Config) -> None:
        """Raise `BadConfig` unless a run with these settings has the same networks and likelihood."""
        own = {**self.settings, "likelihood": self.likelihood}
        for name, value in own.items():
            if (given := getattr(config, name)) != value:
                raise BadConfig(
                    f"{name} is {given}, but the weights of {self.origin} are for {name}={value}: a run that"
                    " starts from them needs the same"
                )
        if objective_class(config.objective).has_rate != self.has_rate:
            raise BadConfig(
                f"objective is {config.objective}, but the weights of {self.origin} are those of"
                f" {self.objective}: an encoder with a distribution and one without have different weights"
            )

    def check_image(self, image: ImageShape, *, dataset: str) -> None:
        """Raise `BadConfig` unless images have the size and channels of the networks."""
        if image != self.image:
            remedy = f"give --image-size {self.image.height}x{self.image.width}"
            if image.channels != self.image.channels:
                remedy = "give images with the same channels"
            raise BadConfig(
                f"images of {dataset} are {image}, but the weights of {self.origin} are for {self.image}:"
                f" {remedy}"
            )
