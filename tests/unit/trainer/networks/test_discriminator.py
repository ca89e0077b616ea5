"""The discriminator: features and logits of single images."""

import torch
from torch import Tensor

from convvae_trainer.networks.discriminator import FEATURE_SIDE, Discriminator
from support.adversarial_formulas import Case


def test_the_discriminator_judges_each_image_alone() -> None:
    """Features and logit of an image do not depend on the batch; the feature layer has short sides."""
    case = Case()
    together = case.discriminator(case.x)
    alone = [case.discriminator(image[None]) for image in case.x]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-4, atol=1e-5)
    for side in (8, 28, 64, 256):
        made = Discriminator(height=side, width=side, channels=1, base=1)
        seen: list[tuple[Tensor, Tensor]] = []
        layer = made.convolutions[made.feature_level]
        layer.register_forward_hook(lambda _, given, output, seen=seen: seen.append((given[0], output)))
        features, logit = made(torch.rand(2, 1, side, side))
        assert logit.shape == (2,)
        assert features.shape == (2, made.num_features)
        ((given, output),) = seen
        assert torch.equal(features, output.flatten(1))
        # The first layer so small: what goes into it is larger, unless the image is as small itself.
        assert output.shape[-1] <= FEATURE_SIDE
        assert given.shape[-1] > FEATURE_SIDE or given.shape[-1] == side
