"""Validation after each epoch: on images that are not trained on, without an effect on the training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import BadData
from convvae_trainer.evaluation.bound import fit_sigma
from convvae_trainer.evaluation.metrics import evaluate
from convvae_trainer.evaluation.validation import validation_terms
from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.runs.fit import fit
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState
from support.tiny_run import TINY, tiny


def with_validation(blobs: Path, **settings: Any) -> tuple[Config, Dataset]:
    """Return settings of a run that validates, and its data."""
    config = config_from({"dataset": str(blobs), **tiny(validation_share=0.2, **settings)})
    return config, load_dataset(config)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_each_epoch_has_the_terms_of_the_bound_and_no_step_has(blobs: Path, tmp_path: Path) -> None:
    """The last line has those that an evaluation of the run gives, and TensorBoard has the same figures."""
    config, dataset = with_validation(blobs)
    assert dataset.validation is not None
    fit(config, dataset, tmp_path / "run")
    for line in lines(tmp_path / "run"):
        terms: list[Any] = [line.get(f"validation_{name}") for name in ("elbo", "distortion", "rate")]
        if line["kind"] == "step":
            assert terms == [None, None, None]
        else:
            assert terms[0] == pytest.approx(-(terms[1] + terms[2]))
    _, loaded, _ = load_run(tmp_path / "run")
    bound = evaluate(loaded, dataset.validation, dataset="", binarize="none").bound
    assert terms == pytest.approx([bound.elbo, bound.distortion, bound.rate], rel=1e-5)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name, value in zip(("elbo", "distortion", "rate"), terms, strict=True):
        points = events.Scalars(f"validation/{name}")
        assert len(points) == config.epochs
        assert points[-1].value == pytest.approx(value, rel=1e-5)


def test_it_changes_no_weight(blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that leaves it out ends with the same checkpoint, bit by bit: it keeps no best weights."""
    config, dataset = with_validation(blobs)
    fit(config, dataset, tmp_path / "with")
    monkeypatch.setattr("convvae_trainer.runs.loop.validation_terms", lambda *_, **__: {"distortion": 0.0})
    fit(config, dataset, tmp_path / "without")
    (one, _), (other, _) = (
        read_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("with", "without")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_validates_by_default_and_not_with_a_share_of_zero(blobs: Path, tmp_path: Path) -> None:
    """The record has the number of images and their choice; a share of 0 leaves the figures out."""
    for name, share in (("default", None), ("none", 0.0)):
        config = dataclasses.replace(with_validation(blobs)[0], validation_share=share, epochs=1)
        dataset = load_dataset(config)
        fit(config, dataset, tmp_path / name)
        record = json.loads((tmp_path / name / "run.json").read_text())["data"]
        epoch = lines(tmp_path / name)[-1]
        if share is None:
            assert (record["train_images"], record["validation_images"]) == (69, 1)
            assert record["validation_split"] == "1 of 70 training images, by the hash of their pixels"
            assert "validation_elbo" in epoch
        else:
            assert (record["train_images"], record["validation_images"]) == (70, 0)
            assert "validation_elbo" not in epoch


@pytest.mark.parametrize("objective", ["vae-gan", "vae-disl"])
def test_a_sigma_that_is_fitted_later_is_the_most_likely_one(blobs: Path, objective: str) -> None:
    """The distortion is that of an evaluation after the sigma was fitted to these images; nothing changes."""
    config, dataset = with_validation(blobs, objective=objective)
    assert dataset.validation is not None
    state = TrainState(config, shape=dataset.image.as_tuple, device=torch.device("cpu"))
    before = state.likelihood.constants().sigma
    terms = validation_terms(state, dataset.validation, binarize="none")
    assert state.likelihood.constants().sigma == before
    fit_sigma(state, dataset.validation)
    bound = evaluate(state, dataset.validation, dataset="", binarize="none").bound
    assert terms["distortion"] == pytest.approx(bound.distortion, rel=1e-4)
    assert terms["elbo"] == pytest.approx(bound.elbo, rel=1e-4)


def test_an_encoder_that_is_not_trained_yet_is_not_validated(blobs: Path, tmp_path: Path) -> None:
    """While a vae-disl trains its GAN, its latents mean nothing."""
    config, dataset = with_validation(blobs, objective="vae-disl", gan_share=0.5, epochs=4)
    fit(config, dataset, tmp_path / "run")
    epochs = [line for line in lines(tmp_path / "run") if line["kind"] == "epoch"]
    assert ["validation_elbo" in line for line in epochs] == [False, False, True, True]


def test_a_figure_that_is_not_finite_is_null(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON has no NaN, and the run goes on."""
    config, dataset = with_validation(blobs, epochs=1)
    monkeypatch.setattr("convvae_trainer.runs.loop.validation_terms", lambda *_, **__: {"elbo": float("nan")})
    fit(config, dataset, tmp_path / "run")
    assert lines(tmp_path / "run")[-1]["validation_elbo"] is None


def test_too_few_images_to_stop_early_are_refused(tmp_path: Path) -> None:
    """One of three images is tested on, and two are trained on."""
    np.save(tmp_path / "three.npy", np.random.default_rng(0).integers(256, size=(3, 8, 8), dtype=np.uint8))
    settings = {**TINY, "validation_share": None, "early_stop_epochs": 2}
    config = config_from({"dataset": str(tmp_path / "three.npy"), **settings})
    with pytest.raises(BadData, match=r"has 2 training images, too few to hold one out for early stopping"):
        fit(config, load_dataset(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()
