"""Compiled networks train as the others do, and an exported model shows no trace of the compilation."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.exports.publish import export
from convvae_trainer.objectives.adversarial import Adversarial
from convvae_trainer.objectives.base import Gradients
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState
from support.tiny_run import TINY, needs_compiler, tiny

# torch's compiler warns of itself.
quiet = pytest.mark.filterwarnings("ignore")
# A gradient is a sum of hundreds of float32 products, here taken in another order: 1e-4 of the largest is
# 1,000 roundings of 1e-7 all in one direction; 6e-7 was seen. A loss that is forgotten is off by all of it.
TOLERANCE = 1e-4


def gradients(config: Config) -> Gradients:
    """Return the gradients of new networks, with every kind of layer, for a fixed batch and fixed noise."""
    train_state = TrainState(config, shape=(16, 16, 1), device=torch.device("cpu"))
    image_BCHW = torch.randint(
        0, 256, (8, 1, 16, 16), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
    )
    return train_state.gradients(image_BCHW, is_later_phase=True)


@needs_compiler
@pytest.mark.slow
@quiet
@pytest.mark.parametrize("objective", ["vae", "vae-gan"])
def test_compiled_networks_have_the_same_gradients(objective: str, config: Config) -> None:
    """The gradients agree within float32 rounding, also where several losses go back through one graph."""
    settings = {"dataset": config.dataset, **TINY, "objective": objective, "likelihood": "gaussian"}
    plain = gradients(config_from(settings))
    compiled = gradients(config_from(settings, {"compile": True}))
    torch.testing.assert_close(compiled.loss, plain.loss, rtol=TOLERANCE, atol=0.0)
    assert compiled.by_network.keys() == plain.by_network.keys()
    for network, wanted in plain.by_network.items():
        assert any(gradient.any() for gradient in wanted), network
        for one, other in zip(compiled.by_network[network], wanted, strict=True):
            limit = TOLERANCE * other.abs().max().item()
            torch.testing.assert_close(one, other, rtol=0.0, atol=limit, msg=f"{network}: {other.shape}")


@needs_compiler
@pytest.mark.slow
@quiet
def test_a_compiled_run_is_exported(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """Its ONNX graphs agree with the networks that are not compiled; otherwise nothing is published."""
    done = fit(dataclasses.replace(config, compile=True, epochs=1), dataset, tmp_path / "run")
    figures, models = done.evaluation.to_json_object(), tmp_path / "models"
    exported = export(
        done.run, done.train_state, dataset, done.progress, figures, models=models, name="blobs"
    )
    assert exported.folder == models / "blobs" / "1"


def test_what_is_evaluated_and_exported_is_never_compiled(
    config: Config, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training calls the compiled networks; the networks of the model are not changed."""
    compiled: list[Callable[..., object]] = []

    def compile_(called: Callable[..., object]) -> Callable[..., object]:
        compiled.append(called)
        return lambda *args, **kwargs: called(*args, **kwargs)

    monkeypatch.setattr("torch.compile", compile_)
    train_states = {}
    for objective, expected in {"vae": 2, "vae-gan": 4}.items():
        compiled.clear()
        settings = config_from({"dataset": config.dataset, **tiny(objective=objective)}, {"compile": True})
        train_states[objective] = TrainState(
            settings, shape=dataset.image.as_tuple, device=torch.device("cpu")
        )
        assert len(compiled) == expected
    parts = train_states["vae-gan"]
    assert isinstance(parts.objective, Adversarial)
    assert compiled[:-1] == [parts.model.encoder, parts.model.decoder, parts.objective.discriminator]
    plain = TrainState(config, shape=dataset.image.as_tuple, device=torch.device("cpu"))
    assert train_states["vae"].tensors().keys() == plain.tensors().keys()
    assert type(parts.model.encoder) is type(plain.model.encoder)
