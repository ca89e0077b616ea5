"""A convolutional encoder, and a decoder of transposed convolutions that mirrors it.

The number of halvings follows from the size of the images and `last_side`. Sides can have 8 to 256 pixels.
B = batch, C = channels, H and W = height and width, Z = latent dimension. Images are NCHW in 0..1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convvae_trainer.networks.likelihoods import bounded
from convvae_trainer.settings.config import LAST_SIDE, Config

__all__ = ["ConvVAE", "Plan", "Residual", "geometry", "make_plan"]

Size = tuple[int, int]

MAX_WIDENING = 4
# exp cannot overflow, and no pixel needs a variance below e^-14.
LOG_VARIANCE_RANGE = (-14.0, 6.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The channels and sizes of the feature maps, level by level. Level 0 is the image."""

    channels: tuple[int, ...]
    sizes: tuple[Size, ...]

    @property
    def num_features(self) -> int:
        """Number of values in the last level."""
        return self.channels[-1] * math.prod(self.sizes[-1])


def make_plan(*, height: int, width: int, channels: int, base: int, last_side: int = LAST_SIDE) -> Plan:
    """Return the levels of the networks for images of one shape.

    Args:
        height: Height of the images.
        width: Width of the images.
        channels: Channels of the images.
        base: Channels after the first halving.
        last_side: Sides are halved until none is longer than this.
    """
    sizes = [(height, width)]
    widths = [channels]
    while max(sizes[-1]) > last_side:
        sizes.append((_halved(sizes[-1][0], last_side), _halved(sizes[-1][1], last_side)))
        widths.append(base * min(2 ** (len(widths) - 1), MAX_WIDENING))
    return Plan(channels=tuple(widths), sizes=tuple(sizes))


def _halved(side: int, last_side: int) -> int:
    """Return a side of the next level. A side that is short enough is kept while the other one is halved."""
    return side // 2 if side > last_side else side


class Residual(nn.Module):
    """A residual block of two convolutions. At first it is the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the input plus the output of the convolutions, of the same shape."""
        activated = nn.functional.silu(x_BCHW)
        change_BCHW: Tensor = self.second(nn.functional.silu(self.first(activated)))
        return x_BCHW + change_BCHW


def geometry(larger: Size, smaller: Size) -> tuple[Size, Size]:
    """Return kernel and stride between two levels: 4 and 2 along a halved side, 3 and 1 along a kept one."""
    halved = (larger[0] != smaller[0], larger[1] != smaller[1])
    return (3 + halved[0], 3 + halved[1]), (1 + halved[0], 1 + halved[1])


class Encoder(nn.Module):
    """An encoder of images to the mean and log-variance of the posterior.

    With `is_point`, as for an autoencoder, the posterior is a point: its log-variance is minus infinity.
    """

    def __init__(
        self, plan: Plan, *, latent_dim: int, hidden: int, blocks: int, is_point: bool = False
    ) -> None:
        super().__init__()
        self.is_point = is_point
        layers: list[nn.Module] = []
        for level in range(1, len(plan.sizes)):
            kernel, stride = geometry(plan.sizes[level - 1], plan.sizes[level])
            layers += [
                nn.Conv2d(plan.channels[level - 1], plan.channels[level], kernel, stride, padding=1),
                *(Residual(plan.channels[level]) for _ in range(blocks if level > 1 else 0)),
                nn.SiLU(),
            ]
        layers.append(nn.Flatten())
        if hidden:
            layers += [nn.Linear(plan.num_features, hidden), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(hidden or plan.num_features, latent_dim if is_point else 2 * latent_dim)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mean, log-variance), each float32 of shape (B, Z)."""
        head = self.head(self.layers(x_BCHW)).float()
        if self.is_point:
            return head, torch.full_like(head, -math.inf)
        mean_BZ, log_variance_BZ = head.chunk(2, dim=1)
        return mean_BZ, bounded(log_variance_BZ, *LOG_VARIANCE_RANGE)


class Decoder(nn.Module):
    """A decoder of latents to the likelihood's parameter of each pixel."""

    def __init__(self, plan: Plan, *, latent_dim: int, hidden: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden:
            layers += [nn.Linear(latent_dim, hidden), nn.SiLU()]
        layers += [
            nn.Linear(hidden or latent_dim, plan.num_features),
            nn.Unflatten(1, (plan.channels[-1], *plan.sizes[-1])),
        ]
        for level in range(len(plan.sizes) - 1, 0, -1):
            larger, smaller = plan.sizes[level - 1], plan.sizes[level]
            kernel, stride = geometry(larger, smaller)
            # Halving an odd side drops its last row or column; output padding restores it.
            missing = (larger[0] - stride[0] * smaller[0], larger[1] - stride[1] * smaller[1])
            layers += [
                *(Residual(plan.channels[level]) for _ in range(blocks if level > 1 else 0)),
                nn.SiLU(),
                nn.ConvTranspose2d(
                    plan.channels[level],
                    plan.channels[level - 1],
                    kernel,
                    stride,
                    padding=1,
                    output_padding=missing,
                ),
            ]
        self.layers = nn.Sequential(*layers)

    @property
    def output_layer(self) -> nn.ConvTranspose2d:
        """The layer that makes the pixels."""
        layer = self.layers[-1]
        assert isinstance(layer, nn.ConvTranspose2d)
        return layer

    def forward(self, latent_BZ: Tensor) -> Tensor:
        """Return the parameter of each pixel, float32 of shape (B, C, H, W), unbounded."""
        output_BCHW: Tensor = self.layers(latent_BZ)
        return output_BCHW.float()


class ConvVAE(nn.Module):
    """An encoder and a decoder for images of one shape.

    Args:
        config: The run's settings.
        height: Height of the images.
        width: Width of the images.
        channels: Channels of the images.
        is_point: Whether the encoder returns a point instead of a distribution.
    """

    def __init__(
        self, config: Config, *, height: int, width: int, channels: int, is_point: bool = False
    ) -> None:
        super().__init__()
        plan = make_plan(
            height=height, width=width, channels=channels, base=config.width, last_side=config.last_side
        )
        sizes: dict[str, int] = {
            "latent_dim": config.latent_dim,
            "hidden": config.hidden,
            "blocks": config.blocks,
        }
        self.encoder = Encoder(plan, **sizes, is_point=is_point)
        self.decoder = Decoder(plan, **sizes)

    def num_parameters(self) -> int:
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())
