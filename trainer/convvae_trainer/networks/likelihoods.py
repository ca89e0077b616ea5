"""The normalised distributions of the decoder over pixels, in nats per image.

The output of the decoder is a logit: under every likelihood its sigmoid is the mean of a pixel, in 0..1.
B = batch, C = channels, H and W = height and width. Sums over pixels are float32.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from convvae_service import bundle

__all__ = [
    "LOG_SIGMA_RANGE",
    "PROBABILITY_CLAMP",
    "Bernoulli",
    "DiscretisedLogistic",
    "Gaussian",
    "PixelLikelihood",
    "bounded",
    "make_likelihood",
]

# It changes the cross-entropy of a 28x28 image by less than 0.001 nats, and is 17 float32 steps away from 1.
PROBABILITY_CLAMP = 1e-6
# The smallest and largest sigma: a tenth of a grey level, and the whole range of pixels.
LOG_SIGMA_RANGE = (math.log(0.1 / 255), 0.0)
# A grey level has the mass of its bin, half a level to either side.
HALF_BIN = 0.5 / 255


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.range = low, high
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (value,) = ctx.saved_tensors
        (gradient,), (low, high) = gradients, ctx.range
        leads_out = ((value < low) & (gradient > 0)) | ((value > high) & (gradient < 0))
        return gradient.masked_fill(leads_out, 0.0), None, None


def bounded(value: Tensor, low: float, high: float) -> Tensor:
    """Return `value` clamped to a range. Outside of it, only gradients that lead back into the range pass.

    A plain clamp has no gradient outside of its range: a parameter that one step moved there would stay.
    """
    if not value.requires_grad:
        # An exported graph then has one plain operator.
        return value.clamp(low, high)
    clamped: Tensor = _Bounded.apply(value, low, high)  # type: ignore[no-untyped-call]
    return clamped


class PixelLikelihood(nn.Module):
    """A likelihood of pixels. Its parameters, if it has any, are trained with the networks."""

    name: str

    def pixel_mean(self, output_BCHW: Tensor) -> Tensor:
        """Return the mean of each pixel in 0..1."""
        return output_BCHW.float().sigmoid()

    def distortion(self, output_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return -log p(x|z) of logits in nats per image, of shape (B,), for training."""
        raise NotImplementedError

    def evaluated_distortion(self, pixel_mean_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return -log p(x|z) of pixel means in nats per image, of shape (B,), as the service computes it."""
        raise NotImplementedError

    def constants(self) -> bundle.LikelihoodSpec:
        """Return the constants that a manifest states."""
        raise NotImplementedError


class Bernoulli(PixelLikelihood):
    """The Bernoulli distribution of binary pixels. For grey levels it is a cross-entropy, not a density."""

    name = "bernoulli"

    def distortion(self, output_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return the cross-entropy from logits."""
        loss_BCHW = nn.functional.binary_cross_entropy_with_logits(
            output_BCHW.float(), x_BCHW, reduction="none"
        )
        return loss_BCHW.flatten(1).sum(1)

    def evaluated_distortion(self, pixel_mean_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return the cross-entropy with probabilities clamped to [c, 1 - c]."""
        # In float64, because 1 - p loses digits where p is near 1.
        p_BCHW = pixel_mean_BCHW.double().clamp(PROBABILITY_CLAMP, 1 - PROBABILITY_CLAMP)
        x_BCHW = x_BCHW.double()
        loss_BCHW = -(x_BCHW * p_BCHW.log() + (1 - x_BCHW) * (-p_BCHW).log1p())
        return loss_BCHW.flatten(1).sum(1).float()

    def constants(self) -> bundle.LikelihoodSpec:
        """Return the clamp of the probabilities."""
        return bundle.LikelihoodSpec(name=self.name, probability_clamp=PROBABILITY_CLAMP)


class Gaussian(PixelLikelihood):
    """A Gaussian density of pixels in 0..1, with one standard deviation for all pixels.

    Args:
        sigma: The fixed standard deviation. None: it is learned.
    """

    name = "gaussian"

    def __init__(self, sigma: float | None = None) -> None:
        super().__init__()
        self.is_fixed = sigma is not None
        start = torch.tensor(math.log(0.25 if sigma is None else sigma))
        self.log_sigma = nn.Parameter(start, requires_grad=not self.is_fixed)

    def _log_sigma(self) -> Tensor:
        return self.log_sigma if self.is_fixed else bounded(self.log_sigma, *LOG_SIGMA_RANGE)

    def distortion(self, output_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return the negative log-density, including its constant."""
        return self.evaluated_distortion(self.pixel_mean(output_BCHW), x_BCHW)

    def evaluated_distortion(self, pixel_mean_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return the negative log-density, including its constant."""
        log_sigma = self._log_sigma()
        squared_B = (x_BCHW - pixel_mean_BCHW).square().flatten(1).sum(1)
        constant = x_BCHW[0].numel() * (log_sigma + 0.5 * math.log(2 * math.pi))
        return 0.5 * squared_B * (-2 * log_sigma).exp() + constant

    def constants(self) -> bundle.LikelihoodSpec:
        """Return the standard deviation of pixels in 0..1."""
        return bundle.LikelihoodSpec(name=self.name, sigma=math.exp(self._log_sigma().item()))


class DiscretisedLogistic(PixelLikelihood):
    """A probability of the 256 grey levels: the mass of a logistic in each bin (Salimans et al. 2017, 2.1).

    All pixels share one learned scale. The first and the last bin have the tails.
    """

    name = "discretised-logistic"

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.1)))

    def _log_scale(self) -> Tensor:
        return bounded(self.log_scale, *LOG_SIGMA_RANGE)

    def distortion(self, output_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return the negative log-probability, in float32."""
        return self._negative_log_mass(self.pixel_mean(output_BCHW), x_BCHW)

    def evaluated_distortion(self, pixel_mean_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return the negative log-probability, computed in float64."""
        return self._negative_log_mass(pixel_mean_BCHW.double(), _levels(x_BCHW)).float()

    def _negative_log_mass(self, mean_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        # With the sigmoid s, s(u) - s(l) = s(u) s(-l) (1 - exp(l - u)), without a difference of near numbers.
        log_scale = self._log_scale().to(mean_BCHW.dtype)
        upper_BCHW = (x_BCHW - mean_BCHW + HALF_BIN) / log_scale.exp()
        lower_BCHW = (x_BCHW - mean_BCHW - HALF_BIN) / log_scale.exp()
        below, above = x_BCHW < HALF_BIN, x_BCHW > 1 - HALF_BIN
        width = torch.log(-torch.expm1(-2 * HALF_BIN / log_scale.exp()))
        zero = torch.zeros_like(upper_BCHW)
        log_mass_BCHW = (
            torch.where(above, zero, nn.functional.logsigmoid(upper_BCHW))
            + torch.where(below, zero, nn.functional.logsigmoid(-lower_BCHW))
            + torch.where(below | above, zero, width)
        )
        return -log_mass_BCHW.flatten(1).sum(1)

    def constants(self) -> bundle.LikelihoodSpec:
        """Return the scale of pixels in 0..1."""
        return bundle.LikelihoodSpec(name=self.name, scale=math.exp(self._log_scale().item()))


def _levels(x_BCHW: Tensor) -> Tensor:
    """Return pixels as float64 multiples of 1/255, which float32 only approximates."""
    return (x_BCHW.double() * 255).round() / 255


def make_likelihood(name: str, *, sigma: float | None = None) -> PixelLikelihood:
    """Return the likelihood of this name; `sigma` is the fixed sigma of a Gaussian, None if it is learned."""
    if name == Gaussian.name:
        return Gaussian(sigma)
    kinds: dict[str, type[PixelLikelihood]] = {kind.name: kind for kind in (Bernoulli, DiscretisedLogistic)}
    return kinds[name]()
