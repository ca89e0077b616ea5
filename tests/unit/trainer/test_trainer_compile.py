"""Networks compiled with torch.compile leave no trace of it in what is evaluated and exported."""

import dataclasses

import pytest
import torch

from convvae_trainer.config import Config
from convvae_trainer.data import Dataset
from convvae_trainer.learner import Learner


def test_what_is_evaluated_and_exported_is_never_compiled(
    config: Config, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training calls the compiled networks; the model's own stay as they are."""
    compiled: list[torch.nn.Module] = []

    def compile_(module: torch.nn.Module) -> torch.nn.Module:
        compiled.append(module)
        return torch.nn.Sequential(module)

    monkeypatch.setattr("torch.compile", compile_)
    settings = dataclasses.replace(config, compile=True)
    learner = Learner(settings, shape=dataset.image.as_tuple, device=torch.device("cpu"))
    assert compiled == [learner.model.encoder, learner.model.decoder]
    plain = Learner(config, shape=dataset.image.as_tuple, device=torch.device("cpu"))
    assert learner.tensors().keys() == plain.tensors().keys()
    assert type(learner.model.encoder) is type(plain.model.encoder)
    assert len(compiled) == 2
