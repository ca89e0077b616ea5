"""The whole way: train, export, serve, call, and compare what comes over the wire with PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from convvae import Client
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.evaluation.metrics import evaluate
from convvae_trainer.exports.graphs import DecoderGraph, EncoderGraph
from convvae_trainer.objectives.bound import kl_to_prior
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.config import Config
from support.serving import serving

LATENT_DIM = 8


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_wire_says_what_pytorch_says(tmp_path: Path, likelihood: str) -> None:
    """Encode, decode, reconstruct, sample and score of a trained model equal PyTorch's, row by row."""
    words = ("fit", "--dataset", "digits", "--epochs", "2", "--latent-dim", str(LATENT_DIM), "--width", "8")
    places = ("--run-dir", str(tmp_path / "run"), "--models", str(tmp_path / "models"), "--name", "digits")
    command = [sys.executable, "-m", "convvae_trainer", *words, "--likelihood", likelihood, *places]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    images = load_dataset(Config(dataset="digits")).test
    _, train_state, _ = load_run(tmp_path / "run", device="cpu")
    with train_state.ema.swapped_in(), torch.no_grad():
        encoder = EncoderGraph(train_state.model).eval()
        decoder = DecoderGraph(train_state.model, train_state.likelihood).eval()
        mean, log_variance = encoder(torch.from_numpy(images))
        decoded, pixel_mean = decoder(mean)
        x_BCHW = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        distortion = train_state.likelihood.evaluated_distortion(pixel_mean.permute(0, 3, 1, 2), x_BCHW)
        rate = kl_to_prior(mean, log_variance).sum(1)
        with serving(tmp_path / "models") as server, Client(server.target, model="digits") as vae:
            encoded = vae.encode(images, include_log_variance=True)
            sampled = vae.sample(50, seed=3)
            scored = vae.score(images)
            drawn = vae.score(images, num_samples=20, seed=1)
            reconstructed = vae.reconstruct(images).images
            from_latents = vae.decode(encoded.mean).images
            parity = json.loads(vae.model().manifest_json)["parity"]["fp32"]
        sampled_images, _ = decoder(torch.from_numpy(sampled.latents))
    assert encoded.log_variance is not None
    np.testing.assert_allclose(encoded.mean, mean.numpy(), atol=1e-4)
    np.testing.assert_allclose(encoded.log_variance, log_variance.numpy(), atol=1e-4)
    for ours, theirs in (
        (reconstructed, decoded),
        (from_latents, decoded),
        (sampled.images, sampled_images),
    ):
        assert np.abs(ours.astype(int) - theirs.numpy()).max() <= 1
    np.testing.assert_allclose(scored.distortion, distortion.numpy(), rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(scored.rate, rate.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scored.elbo, -(distortion + rate).numpy(), rtol=1e-5, atol=1e-2)
    assert max(parity["mean"], parity["log_variance"]) <= 1e-4
    assert parity["image_steps"] <= 1
    # The trainer's figure takes one draw an image, the service's mean of 20 has the same expectation.
    evaluated = evaluate(train_state, images, dataset="digits", binarize="none")
    assert drawn.elbo.mean() == pytest.approx(evaluated.bound.elbo, rel=0.005)
