"""The interface of an objective: the networks that a run trains, and the gradient of each in a step.

B = batch, C = channels, H and W = height and width.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from convvae_service.bundle import CAPABILITIES
from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.likelihoods import PixelLikelihood
from convvae_trainer.objectives.bound import Average, Terms
from convvae_trainer.objectives.noise import NoiseSource
from convvae_trainer.settings.config import Config

__all__ = ["BETAS", "Gradients", "Objective", "ParameterGroup", "Phase", "StepSetup", "gradients_of"]

BETAS = (0.9, 0.99)


def _unchanged(called: Any) -> Any:
    return called


def _single_process(tensors: Sequence[Tensor]) -> None:
    """Leave the tensors as they are: the mean over one process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSetup:
    """How steps compute, the same for every objective.

    `autocast` is the dtype in which the networks compute, None for float32. `compile` returns the compiled
    form of a module or function. `average` replaces tensors by their means over the processes, in place.
    """

    device: torch.device
    autocast: torch.dtype | None = None
    compile: Callable[[Any], Any] = _unchanged
    average: Average = _single_process

    def autocasting(self) -> torch.autocast:
        """Return the context in which the networks compute."""
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterGroup:
    """Networks whose parameters share the settings of an optimiser.

    `is_scale` marks scalar parameters such as a standard deviation: they have a higher learning rate and no
    weight decay.
    """

    networks: tuple[str, ...]
    betas: tuple[float, float] = BETAS
    is_scale: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A part of a run in which the learning rate rises and falls once.

    `start` and `end` are fractions of the run. `rate` is the peak, relative to the run's learning rate.
    """

    start: float = 0.0
    end: float = 1.0
    rate: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradients:
    """The gradients of one step, and the figures of its batch.

    `by_network` has one gradient for each parameter of a network; a network that is absent is not updated.
    The step is skipped if `loss` is not finite. `terms` is None if the step encoded no image. `figures` are
    scalars by name: some or all of the objective's `figures`.
    """

    by_network: dict[str, tuple[Tensor, ...]]
    loss: Tensor
    terms: Terms | None = None
    figures: dict[str, Tensor] = field(default_factory=dict)


class Objective(ABC):
    """A goal of training: the losses of a step, and the networks that follow them.

    Class attributes and class methods say what the rest of the trainer needs to know before a run exists. A
    new objective is a subclass in a file of its own and a row in `settings/objectives.py`.

    Args:
        config: The run's settings.
        model: Encoder and decoder.
        likelihood: The decoder's distribution over pixels.
        shape: (height, width, channels) of the images.
        setup: How steps compute.
    """

    has_rate: ClassVar[bool] = True
    """Whether the encoder returns a distribution, so that there is a rate, a prior and a bound."""
    fits_sigma: ClassVar[bool] = False
    """Whether the Gaussian's sigma is fitted to the training images after the last step."""
    figures: ClassVar[tuple[str, ...]] = ()
    """Names of the figures that `Gradients.figures` may have."""
    optimizers: ClassVar[Mapping[str, tuple[ParameterGroup, ...]]] = {
        "model": (
            ParameterGroup(networks=("encoder", "decoder")),
            ParameterGroup(networks=("likelihood",), is_scale=True),
        )
    }
    """The parameter groups of each optimiser. Gradients are clipped per optimiser."""

    def __init__(
        self,
        config: Config,
        model: ConvVAE,
        likelihood: PixelLikelihood,
        *,
        shape: tuple[int, int, int],  # noqa: ARG002 - for subclasses with networks of their own
        setup: StepSetup,
    ) -> None:
        self.config = config
        self.model = model
        self.likelihood = likelihood
        self.setup = setup

    @abstractmethod
    def gradients(
        self, x_BCHW: Tensor, *, noise: NoiseSource, beta: Tensor, is_later_phase: bool
    ) -> Gradients:
        """Return the gradients of a step. Nothing is fetched from the device.

        Args:
            x_BCHW: float32 pixels in 0..1: the rows of this process.
            noise: Random numbers. A step of either phase must draw the same shapes in the same order.
            beta: Weight of the rate, a scalar on the device.
            is_later_phase: Whether `later_phase_start` has passed.
        """

    def extra_networks(self) -> dict[str, nn.Module]:
        """Return the networks that this objective owns, by name; checkpoints keep them."""
        return {}

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks that are trained, by the names in `optimizers`."""
        model = {"encoder": self.model.encoder, "decoder": self.model.decoder}
        return {**model, "likelihood": self.likelihood, **self.extra_networks()}

    @functools.cached_property
    def _trainable(self) -> dict[str, list[nn.Parameter]]:
        # Listed once: to walk through the modules in each step takes as long as a GPU takes for the step.
        networks = self.networks().items()
        return {name: [p for p in network.parameters() if p.requires_grad] for name, network in networks}

    def parameters(self, network: str) -> list[nn.Parameter]:
        """Return the trainable parameters of a network."""
        return self._trainable[network]

    @classmethod
    def later_phase_start(cls, config: Config) -> float:  # noqa: ARG003 - for subclasses
        """Return the fraction of the run after which the later phase begins. 0: there is one phase."""
        return 0.0

    @classmethod
    def encoder_start(cls, config: Config) -> float:  # noqa: ARG003 - for subclasses
        """Return the fraction of the run before which the encoder is untrained and cannot be exported."""
        return 0.0

    @classmethod
    def phases(cls, config: Config) -> tuple[Phase, ...]:  # noqa: ARG003 - for subclasses
        """Return the parts of the run with a schedule of the learning rate each, from 0 to 1."""
        return (Phase(),)

    @classmethod
    def capabilities(cls) -> tuple[str, ...]:
        """Return what the service can do with an exported model."""
        missing = () if cls.has_rate else ("sample", "score")
        return tuple(name for name in CAPABILITIES if name not in missing)

    @classmethod
    def describe(cls, config: Config) -> str:
        """Return one line about the objective and its most important settings."""
        sigma = [] if config.sigma is None else [f"sigma {config.sigma:g}"]
        return ", ".join([config.objective, f"{config.likelihood} likelihood", *sigma, *cls.details(config)])

    @classmethod
    def details(cls, config: Config) -> list[str]:
        """Return the phrases of `describe` that only some objectives have."""
        return [f"beta {config.beta:g}"] if cls.has_rate else []


def gradients_of(loss: Tensor, *parameters: list[nn.Parameter]) -> list[tuple[Tensor, ...]]:
    """Return the gradient of `loss` for each list of parameters, and keep the graph for other losses."""
    flat = [parameter for group in parameters for parameter in group]
    gradients = torch.autograd.grad(loss, flat, retain_graph=True, materialize_grads=True)
    split: list[tuple[Tensor, ...]] = []
    start = 0
    for group in parameters:
        split.append(gradients[start : start + len(group)])
        start += len(group)
    return split
