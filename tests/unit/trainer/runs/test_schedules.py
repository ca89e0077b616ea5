"""Learning rate, weight of the rate, and the order of images over a run."""

import pytest
import torch

from convvae_trainer.runs.schedules import effective_beta, epoch_order, learning_rate
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
