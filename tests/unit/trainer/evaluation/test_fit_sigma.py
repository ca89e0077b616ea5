"""The Gaussian's sigma: it follows the error within a short run, and resumes with the rest."""

from pathlib import Path

import numpy as np
import pytest
import torch

from convvae_trainer.data.chunking import MAX_ROWS
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.objectives.bound import reparameterise
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.config import Config
from convvae_trainer.step.optimizers import SCALE_RATE
from convvae_trainer.step.train_state import TrainState


@torch.no_grad()
def error_of_draws(train_state: TrainState, images_NHWC: np.ndarray) -> float:
    """Return the root of the mean squared error of pixels decoded from posterior draws."""
    random = torch.Generator().manual_seed(1)
    total = 0.0
    with train_state.ema.swapped_in():
        for low in range(0, len(images_NHWC), MAX_ROWS):
            x = torch.from_numpy(images_NHWC[low : low + MAX_ROWS]).permute(0, 3, 1, 2).float() / 255
            mean, log_variance = train_state.model.encoder(x)
            latent = reparameterise(mean, log_variance, torch.randn(mean.shape, generator=random))
            pixels = train_state.likelihood.pixel_mean(train_state.model.decoder(latent))
            total += float((pixels - x).double().square().sum())
    return float(np.sqrt(total / images_NHWC.size))


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [8, 30])
def test_sigma_is_the_error_of_posterior_draws(tmp_path: Path, epochs: int) -> None:
    """Sigma ends within 5 % of the error on the training images; elsewhere it would cost likelihood."""
    config = Config(
        dataset="digits",
        likelihood="gaussian",
        epochs=epochs,
        width=8,
        hidden=64,
        precision="fp32",
        threads=1,
    )
    dataset = load_dataset(config)
    done = fit(config, dataset, tmp_path / "run")
    sigma = done.evaluation.bound.sigma
    assert sigma == pytest.approx(error_of_draws(done.train_state, dataset.train), rel=0.05)
    lines = done.run.read_metrics()
    assert lines[0]["sigma"] > 0.24
    assert lines[0]["learning_rate"] < config.learning_rate


def test_sigma_has_a_rate_of_its_own_and_no_decay() -> None:
    """Its rate is a multiple of the networks' at every step; nothing pulls it towards 1."""
    config = Config(dataset="x", likelihood="gaussian", width=4, hidden=8, latent_dim=3, weight_decay=0.1)
    train_state = TrainState(config, shape=(8, 8, 1), device=torch.device("cpu"))
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    for rate in (1e-3, 2e-4):
        train_state.step(images, learning_rate=rate, beta=1.0)
        networks, likelihood = train_state.optimizers.by_name["model"].param_groups
        assert (networks["networks"], likelihood["networks"]) == (("encoder", "decoder"), ("likelihood",))
        assert networks["lr"].item() == pytest.approx(rate)
        assert likelihood["lr"].item() == pytest.approx(rate * SCALE_RATE)
        assert (networks["weight_decay"], likelihood["weight_decay"]) == (0.1, 0.0)
    bernoulli = TrainState(
        Config(dataset="x", likelihood="bernoulli"), shape=(8, 8, 1), device=torch.device("cpu")
    )
    (group,) = bernoulli.optimizers.by_name["model"].param_groups
    assert group["networks"] == ("encoder", "decoder")


def test_sigma_and_networks_are_clipped_together() -> None:
    """All gradients of a step shrink alike, to the limit; the norm that is logged is that before."""
    limit = 0.5
    config = Config(
        dataset="x", likelihood="gaussian", width=4, hidden=8, latent_dim=3, max_gradient_norm=limit
    )
    train_state = TrainState(config, shape=(8, 8, 1), device=torch.device("cpu"))
    images = torch.full((4, 1, 8, 8), 255, dtype=torch.uint8)
    state = train_state.generator.get_state()
    found = train_state.gradients(images, is_later_phase=False).by_network
    train_state.generator.set_state(state)
    names = ("encoder", "decoder", "likelihood")
    before = torch.cat([gradient.flatten() for name in names for gradient in found[name]])
    assert before.norm() > limit
    train_state.step(images, learning_rate=1e-3, beta=1.0)
    parameters = [*train_state.model.parameters(), *train_state.likelihood.parameters()]
    given = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    torch.testing.assert_close(given, before * (limit / before.norm()), rtol=1e-5, atol=1e-7)
    assert train_state.step_metrics.means()["gradient_norm"] == pytest.approx(before.norm().item(), rel=1e-5)
