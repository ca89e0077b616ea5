"""The sums of an epoch's step figures. They stay on the device, since reading them waits for it.

B = batch, Z = latent dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from convvae_trainer.compute.distributed import DistContext
from convvae_trainer.objectives.base import Gradients
from convvae_trainer.objectives.bound import ACTIVE_VARIANCE

__all__ = ["StepMetrics"]

# `encoded` counts the steps that encoded images: a step of a GAN has no distortion and no rate.
_COMMON = ("steps", "skipped", "encoded", "distortion", "rate", "gradient_norm")


class StepMetrics:
    """Sums over the finite steps since `clear`.

    Args:
        latent_dim: Z.
        device: Where the sums are kept.
        has_rate: Whether the objective has a rate.
        figures: Names of the figures that only this objective has.
    """

    def __init__(
        self, *, latent_dim: int, device: torch.device, has_rate: bool, figures: Sequence[str] = ()
    ) -> None:
        self._has_rate = has_rate
        self._figures = tuple(figures)
        # Each figure has a sum, and a count of the steps that had it.
        self._names = (*_COMMON, *self._figures, *(_count_of(name) for name in self._figures))
        self._sums = torch.zeros(len(self._names), device=device)
        # Rate, mean and squared mean of each latent dimension.
        self._latents_3Z = torch.zeros((3, latent_dim), device=device)
        self._skipped_in_a_row = torch.zeros((), device=device)
        self._one, self._zero = torch.ones((), device=device), torch.zeros((), device=device)
        self._only_skipped = torch.tensor([float(name == "skipped") for name in self._names], device=device)

    def add(self, gradients: Gradients, *, is_finite: Tensor, gradient_norm: Tensor) -> None:
        """Add the figures of a step; of a step that is not finite, only that it was skipped."""
        values = dict.fromkeys(self._names, self._zero)
        values |= {"steps": self._one, "gradient_norm": gradient_norm}
        for name, figure in gradients.figures.items():
            values |= {name: figure, _count_of(name): self._one}
        is_skipped = ~is_finite
        if (terms := gradients.terms) is not None:
            rate_BZ, mean_BZ = terms.rates.detach(), terms.mean.detach()
            if not self._has_rate:
                # It is infinite.
                rate_BZ = torch.zeros_like(rate_BZ)
            latents_3Z = torch.stack((rate_BZ, mean_BZ, mean_BZ.square())).mean(1)
            values |= {"encoded": self._one, "distortion": terms.distortion.detach().mean()}
            values["rate"] = latents_3Z[0].sum()
            self._latents_3Z += latents_3Z.masked_fill(is_skipped, 0.0)
        step = torch.stack([values[name] for name in self._names])
        self._sums += torch.where(is_finite, step, self._only_skipped)
        self._skipped_in_a_row.add_(1).mul_(is_skipped)

    def clear(self) -> None:
        """Set the sums to 0, but keep the count of skipped steps in a row."""
        self._sums.zero_()
        self._latents_3Z.zero_()

    def share(self, dist: DistContext) -> None:
        """Replace the sums by their means over the processes, each of which saw its rows of every batch."""
        dist.mean_([self._sums, self._latents_3Z])

    def skipped_in_a_row(self) -> int:
        """Return how many steps up to the last one were skipped; waits for the device."""
        return int(self._skipped_in_a_row.item())

    def means(self) -> dict[str, Any]:
        """Return the means by name, None for a figure that no step had; waits for the device."""
        sums = dict(zip(self._names, self._sums.tolist(), strict=True))
        steps, encoded = max(sums["steps"], 1.0), max(sums["encoded"], 1.0)
        is_encoded = sums["encoded"] > 0
        distortion, rate = sums["distortion"] / encoded, sums["rate"] / encoded
        has_rate = is_encoded and self._has_rate
        return {
            "elbo": -(distortion + rate) if has_rate else None,
            "distortion": distortion if is_encoded else None,
            "rate": rate if has_rate else None,
            "active_units": self._active_units(encoded) if is_encoded else None,
            "gradient_norm": sums["gradient_norm"] / steps,
            "steps": int(sums["steps"] + sums["skipped"]),
            "skipped_steps": int(sums["skipped"]),
            **{name: _mean(sums[name], sums[_count_of(name)]) for name in self._figures},
        }

    def rate_per_dimension(self) -> list[float]:
        """Return the mean rate of each latent dimension in nats; waits for the device."""
        encoded = max(float(self._sums[self._names.index("encoded")].item()), 1.0)
        rate_Z: list[float] = (self._latents_3Z[0] / encoded).tolist()
        return rate_Z

    def _active_units(self, encoded: float) -> int:
        """Return the number of active latent dimensions: an estimate, since the weights change meanwhile."""
        mean_Z, square_Z = (self._latents_3Z[1:] / encoded).double()
        return int((square_Z - mean_Z.square() > ACTIVE_VARIANCE).sum().item())

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint, by name."""
        return {
            "sums": self._sums,
            "latents": self._latents_3Z,
            "skipped_in_a_row": self._skipped_in_a_row,
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned; raises KeyError or RuntimeError if names or shapes differ."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])


def _count_of(figure: str) -> str:
    return f"{figure}_count"


def _mean(total: float, count: float) -> float | None:
    return total / count if count else None
