"""The parts of measuring programs in which a mistake would make a figure look right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import lecture_study, mnist_likelihood
from bench.mnist_likelihood import PROTOCOL, cut_short, fit_arguments, train_until
from bench.normalised import make_networks
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


def lecture_report(accuracy: float) -> dict[str, Any]:
    """Return what is published of a report, with VAE/GAN's reconstructions read as often as this."""
    figures = {"accuracy": {"mean": accuracy, "deviation": 0.01, "seeds": 3}}
    claim = {
        "text": "A claim.",
        "verdict": "holds here",
        "cases": [{"words": "0.1 against 0.2", "holds": True}],
    }
    return {
        "command": "convvae-train study",
        "date": "2026-01-01",
        "images": 10,
        "split": "10 of 100 images are held out",
        "classifier": {"accuracy": 0.99},
        "systems": [{"name": "VAE", "figures": {}}, {"name": "VAE/GAN", "figures": figures}],
        "models": [{"input_sharpness": 0.2, "own_size": [28, 28]}],
        "claims": [claim],
    }


@pytest.mark.parametrize(("accuracy", "is_met"), [(0.96, True), (0.94, False)])
def test_a_study_is_published_with_its_verdicts(accuracy: float, is_met: bool) -> None:
    """Figures stand by the systems' names, and a system that the report lacks has no target."""
    found = lecture_study.summary(lecture_report(accuracy))
    assert found["met"] == {"95% of the reconstructions of VAE/GAN are read rightly": is_met}
    assert found["systems"]["VAE/GAN"]["accuracy"]["mean"] == accuracy
    assert found["claims"] == [{"text": "A claim.", "verdict": "holds here", "cases": ["0.1 against 0.2"]}]
