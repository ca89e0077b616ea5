"""Encoder and decoder with a normalisation before every SiLU of maps, as the product does not have them.

B = batch, C = channels, H and W = height and width.
"""

import math
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from convvae_trainer.networks.conv_vae import ConvVAE, Residual
from convvae_trainer.settings.config import Config

__all__ = ["make_networks"]

# As the discriminator has it.
MAX_GROUPS = 8


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return a normalisation of maps."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(MAX_GROUPS, channels), channels)


class NormalisedResidual(nn.Module):
    """A `Residual` with a normalisation before each of its two activations."""

    def __init__(self, residual: Residual, kind: str) -> None:
        super().__init__()
        channels = residual.first.in_channels
        self.residual = residual
        self.before = make_norm(kind, channels)
        self.between = make_norm(kind, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        activated = nn.functional.silu(self.before(x_BCHW))
        inner = nn.functional.silu(self.between(self.residual.first(activated)))
        change_BCHW: Tensor = self.residual.second(inner)
        return x_BCHW + change_BCHW


def normalised(layers: Iterable[nn.Module], kind: str) -> nn.Sequential:
    """Return the layers with a normalisation before every SiLU of maps."""
    found: list[nn.Module] = []
    channels = 0
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            channels = layer.out_channels
        elif isinstance(layer, nn.Unflatten):
            channels = int(layer.unflattened_size[0])
        elif isinstance(layer, nn.Linear):
            channels = 0
        elif isinstance(layer, nn.SiLU) and channels:
            found.append(make_norm(kind, channels))
        found.append(NormalisedResidual(layer, kind) if isinstance(layer, Residual) else layer)
    return nn.Sequential(*found)


def make_networks(kind: str) -> Callable[..., ConvVAE]:
    """Return what makes networks as `ConvVAE` does, normalised."""

    def make(config: Config, *, height: int, width: int, channels: int) -> ConvVAE:
        model = ConvVAE(config, height=height, width=width, channels=channels)
        if kind != "none":
            for part in (model.encoder, model.decoder):
                part.layers = normalised(part.layers, kind)
        return model

    return make
