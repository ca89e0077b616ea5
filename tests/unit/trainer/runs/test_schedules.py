"""Learning rate, weight of the rate, and the order of images over a run."""

import pytest
import torch

from convvae_trainer.objectives.vae_disl import GAN_RATE
from convvae_trainer.runs.schedules import effective_beta, epoch_order, learning_rate
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config


def test_schedules() -> None:
    """The rate warms up and falls to 2 %; the rate's weight rises over its epochs; orders differ by epoch."""
    config = Config(dataset="x", learning_rate=1.0, warmup_steps=10, kl_warmup_epochs=2, beta=0.5)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 50, 0.5) == pytest.approx(0.51)
    assert learning_rate(config, 100, 1.0) == pytest.approx(0.02)
    assert [effective_beta(config, epochs) for epochs in (0, 1, 2, 9)] == [0, 0.25, 0.5, 0.5]
    first, second = epoch_order(config, 0, 100), epoch_order(config, 1, 100)
    assert sorted(first.tolist()) == list(range(100))
    assert not torch.equal(first, second)
    assert torch.equal(first, epoch_order(config, 0, 100))


def test_each_phase_of_vae_disl_is_a_training_of_its_own() -> None:
    """GAN and VAE each warm up and fall to 2 %, the VAE as a run of its length does."""
    settings = {"dataset": "x", "learning_rate": 1.0, "warmup_steps": 10}
    config = config_from(settings, {"objective": "vae-disl", "gan_share": 0.4})
    plain = config_from(settings)
    for step, fraction in ((0, 0.0), (3, 0.003), (500, 0.5), (999, 0.999)):
        in_gan = learning_rate(config, step, 0.4 * fraction)
        assert in_gan == pytest.approx(GAN_RATE * learning_rate(plain, step, fraction)), fraction
        # The GAN had 2,000 steps: the run is 5,000 steps long, and the VAE 3,000.
        in_vae = learning_rate(config, 2000 + 3 * step, 0.4 + 0.6 * fraction)
        assert in_vae == pytest.approx(learning_rate(plain, 3 * step, fraction)), fraction
    assert learning_rate(config, 5000, 1.0) == pytest.approx(0.02)
