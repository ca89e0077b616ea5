"""What the measuring programs build and say, where a mistake would make a figure look right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import mnist_likelihood
from bench.mnist_likelihood import PROTOCOL, cut_short, fit_arguments, train_until
from bench.normalised import make_networks
from bench.vae_gan_claims import SYSTEMS, judge, missing, summary
from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.settings.config import Config


def networks(kind: str, blocks: int) -> ConvVAE:
    config = Config(dataset="digits", width=4, hidden=8, latent_dim=2, blocks=blocks)
    return make_networks(kind)(config, height=28, width=28, channels=1)


@pytest.mark.parametrize(("kind", "norm"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)])
@pytest.mark.parametrize(("blocks", "count"), [(0, 2), (1, 4)])
def test_every_activation_of_maps_is_normalised(
    kind: str, norm: type[nn.Module], blocks: int, count: int
) -> None:
    """Two maps are activated in each plain network, and two more in each residual block."""
    model = networks(kind, blocks)
    for part in (model.encoder, model.decoder):
        assert sum(isinstance(module, norm) for module in part.modules()) == count


@pytest.mark.parametrize(("kind", "is_alone"), [("none", True), ("group", True), ("batch", False)])
def test_batch_normalisation_alone_mixes_images(kind: str, is_alone: bool) -> None:
    """In training an image's posterior depends on the rest of its batch under batch normalisation only."""
    torch.manual_seed(0)
    model = networks(kind, blocks=1).train()
    x_BCHW = torch.rand(4, 1, 28, 28)
    alone_BZ, together_BZ = model.encoder(x_BCHW[:2])[0], model.encoder(x_BCHW)[0][:2]
    assert torch.allclose(alone_BZ, together_BZ, atol=1e-5) == is_alone


def test_a_whole_run_is_not_called_cut_short() -> None:
    """The full protocol leaves nothing to say."""
    assert cut_short(58.0, 3481.0, {"samples": 5000, "images": 10000}) == []


@pytest.mark.parametrize(
    ("minutes", "elapsed_s", "found", "words"),
    [
        (58.0, 60.0, {"samples": 5000, "images": 10000}, "training was stopped after 1.0 of 58 minutes"),
        (5.0, 300.0, {"samples": 5000, "images": 10000}, "the run was given 5.0 minutes"),
        (58.0, 3481.0, {"samples": 100, "images": 10000}, "100 of 5000 importance samples"),
        (58.0, 3481.0, {"samples": 5000, "images": 1000}, "the first 1000 of 10000 test images"),
        (58.0, 3481.0, None, "there is no figure"),
    ],
)
def test_what_is_less_than_the_protocol_is_said(
    minutes: float, elapsed_s: float, found: dict[str, int] | None, words: str
) -> None:
    """Each shortening has one sentence of its own."""
    (sentence,) = cut_short(minutes, elapsed_s, found)
    assert words in sentence


def test_the_command_is_the_protocol() -> None:
    """Every setting of the protocol is among the trainer's arguments, with its value."""
    words = fit_arguments("data", 58, "cuda")
    assert words[words.index("--device") + 1] == "cuda"
    for name, value in {**PROTOCOL, "device": "cuda"}.items():
        given = words[words.index(f"--{name.replace('_', '-')}") + 1]
        assert given == str(value) or float(given) == value


def test_training_ends_at_the_first_look_that_is_low_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The seconds are those of training at that look; a run that ends before has none."""
    bounds = {10.0: 90.0, 20.0: 84.5, 30.0: 84.4}
    trained = [0.0]

    def train_for(words: list[str], run_dir: Path, *, until_s: float) -> bool:
        assert words == (["first"] if not trained[0] else ["fit", "--resume", "--run-dir", str(run_dir)])
        (run_dir / "run.json").touch()
        trained[0] = until_s
        return until_s >= 30

    def look() -> dict[str, Any]:
        return {"log_likelihood": {"nats": -bounds[trained[0]], "samples": 100, "images": 10000}}

    monkeypatch.setattr(mnist_likelihood, "train_for", train_for)
    monkeypatch.setattr(mnist_likelihood, "trained_seconds", lambda _: trained[0])
    for nats, seconds, looks in ((84.5, 20.0, 2), (84.45, 30.0, 3), (84.0, None, 3)):
        trained[0] = 0.0
        (tmp_path / "run.json").unlink(missing_ok=True)
        found = train_until(nats, ["first"], tmp_path, every_s=10.0, look=look)
        assert (found["training_seconds"], len(found["looks"])) == (seconds, looks)
        assert (found["samples"], found["images"]) == (100, 10000)


def claims_runs(seed: int, *, of_gan: float) -> list[dict[str, Any]]:
    figures = {"mse": 0.1, "sharpness": 0.1, "sharpness_distance": 0.5, "rate_nats": 1.0, "elbo_nats": -1.0}
    figures |= {"classified": 0.9, "ssim": 0.9}
    return [
        {
            **figures,
            "system": system,
            "seed": seed,
            "frechet_reconstructions": of_gan if system == "vae-gan" else 10.0,
            "frechet_samples": 10.0,
            "training_cpu_s": 1.0,
        }
        for system in SYSTEMS
    ]


def test_only_missing_seeds_of_the_claims_are_measured() -> None:
    """Seeds that a result file has are kept, data set by data set."""
    kept = {"data": {"mnist": {"runs": [{"seed": 0}, {"seed": 2}]}}}
    assert missing(kept, "mnist", 4) == [1, 3]
    assert missing(kept, "cifar10", 2) == [0, 1]


def test_claims_are_judged_within_a_seed() -> None:
    """Of seeds that not all systems were trained with nothing is said, and that is said."""
    better, worse = claims_runs(0, of_gan=5.0), claims_runs(1, of_gan=15.0)
    found = summary({"mnist": {"runs": [*better, *worse, {**better[0], "seed": 2}]}}, 2, 3)
    assert found["cut_short"] == ["mnist: 2 of 3 seeds"]
    claims = judge(found["data"]["mnist"]["runs"])
    assert claims["Fréchet distance of reconstructions: VAE/GAN below VAE"] == [True, False]
    assert claims["squared error: VAE/GAN above VAE"] == [False, False]
