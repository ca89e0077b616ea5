"""From images to int8 replies: train, export, quantise, check, serve and call."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convvae import Client
from convvae_service.bundle import read_manifest
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.settings.config import Config
from support.serving import serving


def run(module: str, *words: str) -> str:
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    found: NDArray[np.float32] = (first * second).sum(axis=1) / norms
    return found


@pytest.mark.slow
def test_a_quantised_model_answers_as_its_manifest_says(tmp_path: Path) -> None:
    """Embeddings, images, samples and scores in int8 are near those in fp32, and every reply says int8."""
    models = tmp_path / "models"
    words = (
        "--dataset",
        "digits",
        "--epochs",
        "2",
        "--latent-dim",
        "8",
        "--width",
        "8",
        "--image-size",
        "16",
    )
    places = ("--run-dir", str(tmp_path / "run"), "--models", str(models), "--name", "digits")
    run("convvae_trainer", "fit", *words, *places)
    found = json.loads(
        run("convvae_trainer", "quantize", str(models / "digits"), "--dataset", "digits", "--json")
    )
    assert found["folder"] == str(models / "digits" / "2")
    checked = run("convvae_service", "check", str(models))
    assert "digits@2  ok  vae, gaussian, 16x16x1, latent 8, fp32, int8" in checked
    images = load_dataset(Config(dataset="digits", image_size=(16, 16))).test
    replies = {}
    for precision in ("fp32", "int8"):
        flags = ("--precision", precision)
        with serving(models, *flags) as server, Client(server.target, model="digits") as vae:
            encoded, decoded = vae.encode(images), vae.decode(vae.encode(images).mean)
            sampled, scored = vae.sample(20, seed=3), vae.score(images)
            for reply in (encoded, decoded, sampled, scored):
                assert (reply.version, reply.precision) == (2, precision)
            replies[precision] = (encoded.mean, decoded.images, sampled, scored.elbo)
    (mean, decoded_fp32, sampled_fp32, elbo), (own_mean, decoded_int8, sampled_int8, own_elbo) = (
        replies["fp32"],
        replies["int8"],
    )
    accuracy = read_manifest(Path(found["folder"])).accuracy["int8"]
    assert accuracy.images == len(images)
    assert cosines(mean, own_mean).mean() == pytest.approx(accuracy.cosine_mean, abs=1e-4)
    assert float((own_elbo - elbo).mean()) == pytest.approx(accuracy.elbo_change, abs=0.05)
    assert (mean != own_mean).any()
    np.testing.assert_array_equal(sampled_fp32.latents, sampled_int8.latents)
    for first, second in ((decoded_fp32, decoded_int8), (sampled_fp32.images, sampled_int8.images)):
        assert np.abs(first.astype(int) - second).mean() < 3
