"""The discriminator of a GAN, whose layer l also measures reconstructions (Larsen et al. 2016, section 2.3).

B = batch, C = channels, H and W = height and width, F = features of layer l. Images are NCHW in 0..1.
"""

import math

import torch
from torch import Tensor, nn

from convvae_trainer.networks.conv_vae import geometry, make_plan

__all__ = ["Discriminator"]

# Layer l is the first with sides of at most this, as the third halving of 64x64 images is.
FEATURE_SIDE = 8
SLOPE = 0.2
HIDDEN = 256
MAX_GROUPS = 8


class Discriminator(nn.Module):
    """Tells images of the data (high logit) from made ones (low).

    Group normalisation, so that no image's logit depends on what else is in the batch.

    Args:
        height: Of the images.
        width: Of the images.
        channels: Of the images.
        base: Channels after the first halving.
    """

    def __init__(self, *, height: int, width: int, channels: int, base: int) -> None:
        super().__init__()
        plan = make_plan(height=height, width=width, channels=channels, base=base)
        # As in the paper one convolution at full size comes first: layer l then is no near-linear filter of
        # the pixels, which would measure little else than they do.
        stem = max(1, base // 2)
        convolutions: list[nn.Module] = [nn.Conv2d(channels, stem, 3, padding=1)]
        activations: list[nn.Module] = [nn.LeakyReLU(SLOPE)]
        for level in range(1, len(plan.sizes)):
            kernel, stride = geometry(plan.sizes[level - 1], plan.sizes[level])
            width_in = stem if level == 1 else plan.channels[level - 1]
            width_out = plan.channels[level]
            convolutions.append(nn.Conv2d(width_in, width_out, kernel, stride, padding=1))
            norm = nn.GroupNorm(math.gcd(MAX_GROUPS, width_out), width_out)
            activations.append(nn.Sequential(norm, nn.LeakyReLU(SLOPE)))
        self.convolutions = nn.ModuleList(convolutions)
        self.activations = nn.ModuleList(activations)
        sides = [max(size) for size in plan.sizes[1:]]
        self.feature_level = next(level for level, side in enumerate(sides, 1) if side <= FEATURE_SIDE)
        self.num_features = plan.channels[self.feature_level] * math.prod(plan.sizes[self.feature_level])
        self.judge = nn.Sequential(
            nn.Flatten(), nn.Linear(plan.num_features, HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(HIDDEN, 1)
        )

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features of layer l before its activation (B, F), logits (B,)), both float32."""
        features_BF = torch.empty(0)
        hidden = 2 * x_BCHW - 1
        for level, (convolution, activation) in enumerate(
            zip(self.convolutions, self.activations, strict=True)
        ):
            hidden = convolution(hidden)
            if level == self.feature_level:
                features_BF = hidden.flatten(1).float()
            hidden = activation(hidden)
        return features_BF, self.judge(hidden).flatten().float()
