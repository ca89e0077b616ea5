"""What the steps of an epoch add up to, on the device: nothing is fetched until somebody looks.

B = batch, Z = latent dimension.
"""

from typing import Any

import torch
from torch import Tensor

from convvae_trainer.compute.distributed import DistContext
from convvae_trainer.objectives.adversarial import Gradients
from convvae_trainer.objectives.bound import ACTIVE_VARIANCE

__all__ = ["StepMetrics"]

# `encoded` counts the steps that had a distortion and a rate: a GAN's have none.
NAMES = (
    "steps",
    "skipped",
    "encoded",
    "distortion",
    "rate",
    "gradient_norm",
    "feature_distortion",
    "adversarial",
    "discrimination",
    "adversarial_weight",
)
_GAMES = ("adversarial", "discrimination")


class StepMetrics:
    """Sums over the finite steps since `clear`.

    Args:
        latent_dim: Z.
        device: Where the sums are kept.
        has_rate: Whether the objective has a rate; an autoencoder's is infinite.
        has_discriminator: Whether there is one.
        has_phases: Whether a step either plays or encodes, as VAE_Dis_l's; else, with a discriminator, both.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        device: torch.device,
        has_rate: bool,
        has_discriminator: bool,
        has_phases: bool,
    ) -> None:
        self._has_rate = has_rate
        self._has_discriminator = has_discriminator
        self._has_phases = has_phases
        self._sums = torch.zeros(len(NAMES), device=device)
        # Rate, mean and squared mean of each latent dimension.
        self._latents_3Z = torch.zeros((3, latent_dim), device=device)
        self._in_a_row = torch.zeros((), device=device)
        self._one, self._zero = torch.ones((), device=device), torch.zeros((), device=device)
        self._only_skipped = torch.tensor([float(name == "skipped") for name in NAMES], device=device)

    def add(self, found: Gradients, *, finite: Tensor, gradient_norm: Tensor) -> None:
        """Add a step; of one that is not finite only that it was skipped."""
        seen = dict.fromkeys(NAMES, self._zero) | {"steps": self._one, "gradient_norm": gradient_norm}
        seen |= found.figures
        skipped = ~finite
        if (terms := found.terms) is not None:
            rate_BZ, mean_BZ = terms.rates.detach(), terms.mean.detach()
            if not self._has_rate:
                rate_BZ = torch.zeros_like(rate_BZ)
            latents_3Z = torch.stack((rate_BZ, mean_BZ, mean_BZ.square())).mean(1)
            seen |= {"encoded": self._one, "distortion": terms.distortion.detach().mean()}
            seen["rate"] = latents_3Z[0].sum()
            self._latents_3Z += latents_3Z.masked_fill(skipped, 0.0)
        now = torch.stack([seen[name] for name in NAMES])
        self._sums += torch.where(finite, now, self._only_skipped)
        self._in_a_row.add_(1).mul_(skipped)

    def clear(self) -> None:
        """Start anew; how many steps in a row were skipped is kept."""
        self._sums.zero_()
        self._latents_3Z.zero_()

    def share(self, dist: DistContext) -> None:
        """Replace the sums by their means over the processes, each of which saw its rows of every batch."""
        dist.mean_([self._sums, self._latents_3Z])

    def skipped_in_a_row(self) -> int:
        """Return how many steps up to the last one were skipped; waits for the device."""
        return int(self._in_a_row.item())

    def means(self) -> dict[str, Any]:
        """Return the means so far by name, None where a figure does not apply; waits for the device."""
        sums = dict(zip(NAMES, self._sums.tolist(), strict=True))
        steps, encoded = max(sums["steps"], 1.0), max(sums["encoded"], 1.0)
        is_encoded = sums["encoded"] > 0
        distortion, rate = sums["distortion"] / encoded, sums["rate"] / encoded
        has_rate = is_encoded and self._has_rate
        figures: dict[str, Any] = {
            "elbo": -(distortion + rate) if has_rate else None,
            "distortion": distortion if is_encoded else None,
            "rate": rate if has_rate else None,
            "active_units": self._active_units(encoded) if is_encoded else None,
            "gradient_norm": sums["gradient_norm"] / steps,
            "steps": int(sums["steps"] + sums["skipped"]),
            "skipped_steps": int(sums["skipped"]),
        }
        if self._has_discriminator:
            played = sums["steps"] - sums["encoded"] if self._has_phases else sums["steps"]
            # The weight is of a game on encoded images: with phases there is none.
            both = 0.0 if self._has_phases else sums["encoded"]
            figures |= {name: _mean(sums[name], played) for name in _GAMES}
            figures["feature_distortion"] = _mean(sums["feature_distortion"], sums["encoded"])
            figures["adversarial_weight"] = _mean(sums["adversarial_weight"], both)
        return figures

    def rate_per_dimension(self) -> list[float]:
        """Return the mean rate of each latent dimension in nats; waits for the device."""
        encoded = max(float(self._sums[NAMES.index("encoded")].item()), 1.0)
        rate_Z: list[float] = (self._latents_3Z[0] / encoded).tolist()
        return rate_Z

    def _active_units(self, encoded: float) -> int:
        """Count dimensions whose posterior mean varies, while the weights move: an estimate."""
        mean_Z, square_Z = (self._latents_3Z[1:] / encoded).double()
        return int((square_Z - mean_Z.square() > ACTIVE_VARIANCE).sum().item())

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint has to hold, by name."""
        return {"totals": self._sums, "latents": self._latents_3Z, "skipped_in_a_row": self._in_a_row}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` returned; raises KeyError or RuntimeError where it does not fit."""
        for name, held in self.tensors().items():
            held.copy_(tensors[name])


def _mean(total: float, count: float) -> float | None:
    """Return the mean of so many steps; None of none."""
    return total / count if count else None
