"""The networks: any size in, the same size out."""

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convvae_trainer.networks.conv_vae import LOG_VARIANCE_RANGE, ConvVAE, Residual, make_plan
from convvae_trainer.objectives.bound import kl_to_prior, reparameterise
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config

SMALL: dict[str, Any] = {"width": 4, "hidden": 8, "latent_dim": 3}


@pytest.mark.parametrize(
    ("size", "last"),
    [
        ((8, 8), (4, 4)),
        ((28, 28), (7, 7)),
        ((28, 20), (7, 5)),
        ((32, 32), (4, 4)),
        ((33, 45), (4, 5)),
        ((256, 256), (4, 4)),
        ((8, 256), (4, 4)),
    ],
)
def test_depth_follows_the_size(size: tuple[int, int], last: tuple[int, int]) -> None:
    """Sides are halved until both are at most 7, so that the dense layers stay small."""
    assert make_plan(height=size[0], width=size[1], channels=1, base=32).sizes[-1] == last


@pytest.mark.parametrize(
    ("last_side", "size", "last", "channels"),
    [
        (7, (28, 28), (7, 7), (1, 32, 64)),
        (4, (28, 28), (3, 3), (1, 32, 64, 128)),
        (3, (28, 20), (3, 2), (1, 32, 64, 128)),
        (1, (28, 28), (1, 1), (1, 32, 64, 128, 128)),
        (2, (8, 8), (2, 2), (1, 32, 64)),
    ],
)
def test_depth_is_a_setting(
    last_side: int, size: tuple[int, int], last: tuple[int, int], channels: tuple[int, ...]
) -> None:
    """`last_side` says where the halving ends."""
    plan = make_plan(height=size[0], width=size[1], channels=1, base=32, last_side=last_side)
    assert (plan.sizes[-1], plan.channels) == (last, channels)


# Other jobs on the machine are no reason to fail.
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(8, 256),
    st.integers(8, 256),
    st.sampled_from([1, 3]),
    st.sampled_from([0, 1]),
    st.integers(1, 7),
)
def test_every_size_comes_back(height: int, width: int, channels: int, blocks: int, last_side: int) -> None:
    """The decoder's output has the encoder's input shape, for every size from 8 to 256, at any depth."""
    config = Config(dataset="x", width=2, hidden=4, latent_dim=3, blocks=blocks, last_side=last_side)
    model = ConvVAE(config, height=height, width=width, channels=channels)
    with torch.no_grad():
        mean, log_variance = model.encoder(torch.rand(2, channels, height, width))
        assert mean.shape == log_variance.shape == (2, 3)
        assert model.decoder(mean).shape == (2, channels, height, width)


def test_log_variance_is_bounded() -> None:
    """However large the encoder's output, exp of the log-variance is finite."""
    model = ConvVAE(Config(dataset="x", **SMALL), height=8, width=8, channels=1)
    with torch.no_grad():
        model.encoder.head.weight.mul_(1e9)
        _, log_variance = model.encoder(torch.rand(4, 1, 8, 8))
    assert log_variance.min() >= LOG_VARIANCE_RANGE[0]
    assert log_variance.max() <= LOG_VARIANCE_RANGE[1]


@pytest.mark.parametrize(("bias", "back"), [(-40.0, 1.0), (40.0, -1.0)])
def test_a_log_variance_out_of_its_range_comes_back(bias: float, back: float) -> None:
    """A log-variance at the end of its range returns once the rate has weight."""
    torch.manual_seed(0)
    model = ConvVAE(Config(dataset="x", **SMALL), height=8, width=8, channels=1)
    head = model.encoder.head
    with torch.no_grad():
        head.bias[3:].fill_(bias)
    kl_to_prior(*model.encoder(torch.rand(4, 1, 8, 8))).sum().backward()  # type: ignore[no-untyped-call]
    assert head.bias.grad is not None
    assert (-back * head.bias.grad[3:] > 0).all()


def test_residual_blocks_start_as_the_identity() -> None:
    """A residual block adds almost nothing at first, so that depth does not hurt the first steps."""
    torch.manual_seed(0)
    model = ConvVAE(Config(dataset="x", blocks=2, **SMALL), height=28, width=28, channels=1)
    blocks = [module for module in model.modules() if isinstance(module, Residual)]
    assert len(blocks) == 4
    x = torch.randn(2, 8, 7, 7)
    assert (blocks[0](x) - x).abs().max() < 1
    assert not blocks[0].second.weight.any()


def test_hidden_layers_are_optional() -> None:
    """`hidden` 0 leaves the dense layers out."""
    plain = Config(dataset="x", width=4, hidden=0, latent_dim=3)
    model = ConvVAE(plain, height=8, width=8, channels=1)
    assert model.encoder.head.in_features == math.prod((4, 4, 4))


def test_an_autoencoders_posterior_is_a_point() -> None:
    """Its encoder has one output for each latent, and a draw is that output whatever the noise."""
    config = Config(dataset="x", objective="ae", **SMALL)
    model = ConvVAE(config, height=8, width=8, channels=1, is_point=not objective_class("ae").has_rate)
    assert model.encoder.is_point
    assert model.encoder.head.out_features == 3
    mean, log_variance = model.encoder(torch.rand(4, 1, 8, 8))
    assert torch.equal(log_variance, torch.full((4, 3), -math.inf))
    latent = reparameterise(mean, log_variance, 1e6 * torch.randn(4, 3))
    assert torch.equal(latent, mean)
    for gradient in torch.autograd.grad(latent.sum(), list(model.encoder.parameters())):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("objective", ["vae", "vae-disl", "vae-gan"])
def test_the_others_have_a_variance(objective: str) -> None:
    """Two outputs for each latent, mean and log-variance."""
    config = config_from({"dataset": "x", "objective": objective}, SMALL)
    is_point = not objective_class(objective).has_rate
    model = ConvVAE(config, height=8, width=8, channels=1, is_point=is_point)
    assert not model.encoder.is_point
    assert model.encoder.head.out_features == 6


@pytest.mark.parametrize("size", [(8, 8), (28, 20), (33, 45)])
def test_an_image_is_computed_alone(size: tuple[int, int]) -> None:
    """The output for an image does not depend on the rest of the batch."""
    torch.manual_seed(0)
    model = ConvVAE(Config(dataset="x", blocks=1, **SMALL), height=size[0], width=size[1], channels=3)
    x = torch.rand(3, 3, *size)
    with torch.no_grad():
        mean, log_variance = model.encoder(x)
        for row, image in enumerate(x):
            alone = model.encoder(image[None])
            torch.testing.assert_close(mean[row], alone[0][0])
            torch.testing.assert_close(log_variance[row], alone[1][0])
            torch.testing.assert_close(model.decoder(mean)[row], model.decoder(mean[row : row + 1])[0])
