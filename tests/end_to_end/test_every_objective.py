"""Every objective and likelihood, over all sizes of images: trained, exported, served, compared."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from convvae import Client
from convvae.errors import NotPossible
from convvae_trainer.compute.process import configure_process
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.evaluation.metrics import evaluate
from convvae_trainer.exports.graphs import DecoderGraph, EncoderGraph
from convvae_trainer.exports.parity import TOLERANCES
from convvae_trainer.exports.publish import export
from convvae_trainer.objectives.bound import kl_to_prior
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.objectives import OBJECTIVES
from convvae_trainer.step.train_state import TrainState
from support.serving import serving
from support.tiny_run import write_blobs

pytestmark = pytest.mark.slow

LATENT_DIM = 5
DRAWS = 50
SEEDS = 10


@dataclass(frozen=True)
class Case:
    """A run: height, width and channels, and what is trained on them."""

    shape: tuple[int, int, int]
    objective: str
    likelihood: str
    count: int = 40
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def is_small(self) -> bool:
        """Whether many draws of its images are quick."""
        return math.prod(self.shape) < 2000

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))}-{self.objective}-{self.likelihood}"


CASES = (
    Case((8, 8, 1), "ae", "bernoulli"),
    Case((28, 20, 3), "ae", "gaussian"),
    Case((8, 8, 3), "vae", "bernoulli", settings={"free_bits": 0.1, "blocks": 1}),
    Case((100, 60, 1), "vae", "gaussian", settings={"importance_samples": 3}),
    Case((256, 256, 3), "vae", "discretised-logistic", count=10, settings={"width": 2}),
    Case((28, 20, 1), "vae-disl", "gaussian", settings={"gan_share": 0.5}),
    Case((64, 64, 3), "vae-gan", "gaussian", settings={"adversarial_loss": "minimax"}),
)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Configure this process for runs on one thread, and restore torch's threads at the end."""
    before = torch.get_num_threads()
    configure_process(threads=1)
    yield
    torch.set_num_threads(before)


def trained(case: Case, folder: Path) -> tuple[Fitted, NDArray[np.uint8]]:
    """Train a few steps, publish the run as model `tiny`, and return it with its test images."""
    height, width, channels = case.shape
    shape = (height, width) if channels == 1 else case.shape
    path = write_blobs(folder / "blobs.npy", count=case.count, shape=shape)
    values = {"objective": case.objective, "likelihood": case.likelihood, "latent_dim": LATENT_DIM}
    small = {"width": 4, "hidden": 16, "batch_size": 8, "epochs": 1, "precision": "fp32", "threads": 1}
    if "discriminator_width" in OBJECTIVES[case.objective].settings:
        small["discriminator_width"] = 4
    config = config_from({"dataset": str(path), "device": "cpu"}, values, small, case.settings)
    dataset = load_dataset(config)
    done = fit(config, dataset, folder / "run")
    figures = done.evaluation.to_json_object()
    export(done.run, done.train_state, dataset, done.progress, figures, models=folder / "models", name="tiny")
    return done, dataset.test


def test_the_cases_are_complete() -> None:
    """Every objective, likelihood and number of channels is there, and the ends of the sizes."""
    hints = Config.__annotations__
    assert {case.objective for case in CASES} == set(OBJECTIVES)
    assert {case.likelihood for case in CASES} == set(hints["likelihood"].__args__) - {"auto"}
    sides = {side for case in CASES for side in case.shape[:2]}
    assert (min(sides), max(sides)) == (8, 256)
    assert {case.shape[2] for case in CASES} == {1, 3}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_service_says_what_pytorch_says(case: Case, tmp_path: Path) -> None:
    """Encode, decode, reconstruct and, where there is a prior, sample and score equal PyTorch's."""
    done, images = trained(case, tmp_path)
    # As the service has it: of the files that the run left.
    _, train_state, _ = load_run(tmp_path / "run")
    assert sum(line.get("skipped_steps", 0) for line in done.run.read_metrics()) == 0
    with train_state.ema.swapped_in(), torch.no_grad():
        encoder = EncoderGraph(train_state.model).eval()
        decoder = DecoderGraph(train_state.model, train_state.likelihood).eval()
        encoded = encoder(torch.from_numpy(images))
        mean = encoded[0]
        rebuilt, pixel_mean = decoder(mean)
        x_BCHW = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        distortion = train_state.likelihood.evaluated_distortion(pixel_mean.permute(0, 3, 1, 2), x_BCHW)
        with serving(tmp_path / "models") as server, Client(server.target, model="tiny") as vae:
            check_images(vae, images, encoded, rebuilt, case)
            if case.objective == "ae":
                check_no_prior(vae, images)
                return
            sampled = vae.sample(6, seed=3)
            assert_images(sampled.images, decoder(torch.from_numpy(sampled.latents))[0])
            scored = vae.score(images)
            drawn = vae.score(images, num_samples=DRAWS, seed=1) if case.is_small else None
            manifest = json.loads(vae.model().manifest_json)
        rate = kl_to_prior(*encoded).sum(1)
    np.testing.assert_allclose(scored.distortion, distortion.numpy(), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(scored.rate, rate.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scored.elbo, -(distortion + rate).numpy(), rtol=1e-4, atol=1e-2)
    assert scored.rate.mean() == pytest.approx(done.evaluation.bound.rate, rel=1e-4, abs=1e-4)
    if "discriminator_width" in OBJECTIVES[case.objective].settings:
        check_sigma(done, train_state, manifest)
    if drawn is None:
        return
    # The trainer's figure takes one draw an image: over seeds it has the service's mean as its own.
    figures = [
        evaluate(train_state, images, dataset="blobs", binarize="none", seed=seed).bound.elbo
        for seed in range(SEEDS)
    ]
    trainer = np.asarray(figures, float)
    error = trainer.std() / math.sqrt(SEEDS) + trainer.std() / math.sqrt(DRAWS)
    assert drawn.elbo.mean() == pytest.approx(trainer.mean(), abs=5 * error + 1e-4 * abs(trainer.mean()))


def check_images(
    vae: Client,
    images: NDArray[np.uint8],
    encoded: tuple[torch.Tensor, ...],
    rebuilt: torch.Tensor,
    case: Case,
) -> None:
    """Compare what every objective has: latents, images of them, and the parity that the manifest states."""
    found = vae.encode(images, include_log_variance=True)
    assert images.shape[1:] == case.shape
    np.testing.assert_allclose(found.mean, encoded[0].numpy(), atol=TOLERANCES["mean"])
    if case.objective == "ae":
        assert found.log_variance is None
        assert len(encoded) == 1
    else:
        assert found.log_variance is not None
        np.testing.assert_allclose(found.log_variance, encoded[1].numpy(), atol=TOLERANCES["mean"])
    assert_images(vae.reconstruct(images).images, rebuilt)
    assert_images(vae.decode(found.mean).images, rebuilt)
    manifest = json.loads(vae.model().manifest_json)
    parity = manifest["parity"]["fp32"]
    assert parity["mean"] <= TOLERANCES["mean"]
    assert (parity["log_variance"] is None) == (case.objective == "ae")
    assert parity["image_steps"] <= TOLERANCES["image"]
    assert parity["pixel_mean"] <= TOLERANCES["pixel_mean"]
    assert manifest["likelihood"]["name"] == case.likelihood
    assert (manifest["training"]["metrics"]["test_elbo_nats"] is None) == (case.objective == "ae")


def check_no_prior(vae: Client, images: NDArray[np.uint8]) -> None:
    """An autoencoder refuses what it has no meaning for."""
    for call in (lambda: vae.sample(2, seed=0), lambda: vae.score(images)):
        with pytest.raises(NotPossible) as raised:
            call()
        assert raised.value.code == "FAILED_PRECONDITION"


def assert_images(ours: NDArray[np.uint8], theirs: torch.Tensor) -> None:
    assert ours.shape == tuple(theirs.shape)
    assert np.abs(ours.astype(int) - theirs.numpy()).max() <= TOLERANCES["image"]
    # Not all one colour: there is something to compare.
    assert ours.std() > 0


def check_sigma(done: Fitted, train_state: TrainState, manifest: dict[str, Any]) -> None:
    """The sigma of a game is the root mean square of what posterior draws leave of the training pixels."""
    sigma = manifest["likelihood"]["sigma"]
    assert sigma == pytest.approx(done.evaluation.bound.sigma)
    train = load_dataset(done.run.config).train
    # With the same draws, at the likeliest sigma the mean squares are sigma^2.
    figures = evaluate(train_state, train, dataset="blobs", binarize="none", seed=0)
    expected = math.prod(train.shape[1:]) * (0.5 + math.log(sigma) + 0.5 * math.log(2 * math.pi))
    assert figures.bound.distortion == pytest.approx(expected, rel=1e-5)
