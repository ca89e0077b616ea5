"""The discriminator of a GAN. Its layer l also measures reconstructions (Larsen et al. 2016, section 2.3).

B = batch, C = channels, H and W = height and width, F = features of layer l. Images are NCHW in 0..1.
"""

import math

import torch
from torch import Tensor, nn

from convvae_trainer.networks.conv_vae import geometry, make_plan

__all__ = ["Discriminator"]

# Layer l is the first with sides of at most this: the third halving for 64x64 images, as in the paper.
FEATURE_SIDE = 16
SLOPE = 0.2
HIDDEN = 256
MAX_GROUPS = 8


class Discriminator(nn.Module):
    """A classifier of images: a high logit means an image of the data, a low one a generated image.

    It uses group normalisation, so that the logit of an image does not depend on the rest of the batch.

    Args:
        height: Height of the images.
        width: Width of the images.
        channels: Channels of the images.
        base: Channels after the first halving.
    """

    def __init__(self, *, height: int, width: int, channels: int, base: int) -> None:
        super().__init__()
        plan = make_plan(height=height, width=width, channels=channels, base=base)
        # The first convolution has the full size of the image, as in the paper. Without it layer l would be
        # nearly linear in the pixels, and would measure little more than their differences.
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
        self.head = nn.Sequential(
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
        return features_BF, self.head(hidden).flatten().float()
