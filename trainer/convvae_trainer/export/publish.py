"""A trained run to a published bundle: graphs, parity check, manifest, model card and pictures."""

import datetime
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_service.bundle import (
    METRICS_FILE,
    BundleError,
    Manifest,
    Precision,
    Role,
    Training,
    check_model_name,
    describe_graph,
    publish,
)
from convvae_trainer.data.dataset import Dataset, resize_of
from convvae_trainer.data.image_grid import grid, pairs, png
from convvae_trainer.data.selection import varied
from convvae_trainer.errors import BadConfig, ExportFailed
from convvae_trainer.evaluation.metrics import published_metrics
from convvae_trainer.export.graphs import OPSET, DecoderGraph, EncoderGraph, to_onnx
from convvae_trainer.export.model_card import BEST_EPOCH, UNFINISHED, model_card
from convvae_trainer.export.parity import check_parity
from convvae_trainer.runs.folder import RunFolder, can_be_written, repeatability, reproducing_command
from convvae_trainer.runs.progress import (
    TrainProgress,
    batch_size,
    fraction_done,
    is_finished,
    trained_images,
)
from convvae_trainer.runs.segments import distinct, libraries_of
from convvae_trainer.step.train_state import TrainState

__all__ = ["Exported", "check_target", "export"]

ROLES: tuple[Role, ...] = ("encoder", "decoder")
PRECISION: Precision = "fp32"
NUM_PICTURES = 32
COLUMNS = 8
SAMPLE_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """Where the version lies, and its manifest."""

    folder: Path
    manifest: Manifest


def check_target(models: Path, name: str) -> None:
    """Make sure that `name` can be published under `models`, before hours of training; nothing is made.

    Raises:
        BadConfig: The name is none that a model may have, or the folder cannot be written.
    """
    try:
        check_model_name(name)
    except BundleError as error:
        raise BadConfig(f"--name: {error}") from None
    if not can_be_written(models / name):
        raise BadConfig(f"--models: {models / name} cannot be written")


@torch.no_grad()
def export(
    run: RunFolder,
    train_state: TrainState,
    dataset: Dataset,
    progress: TrainProgress,
    evaluation: dict[str, Any],
    *,
    models: Path,
    name: str,
) -> Exported:
    """Publish the averaged weights as the next version of `name` under `models`.

    Args:
        run: Where the weights come from.
        train_state: Networks and likelihood, on the CPU.
        dataset: The run's data: for the parity check and the pictures.
        progress: How far the run is.
        evaluation: Figures on the test images.
        models: The model repository.
        name: The model.

    Raises:
        ExportFailed: ONNX Runtime and PyTorch disagree; nothing was published.
        MissingExtra: A package is missing.
    """
    check_target(models, name)
    config = run.config
    with train_state.ema.swapped_in():
        modules: dict[Role, torch.nn.Module] = {
            "encoder": EncoderGraph(train_state.model),
            "decoder": DecoderGraph(train_state.model, train_state.likelihood),
        }
        shape: dict[str, Any] = {
            "image": dataset.image,
            "latent_dim": config.latent_dim,
            "has_log_variance": train_state.objective.has_rate,
        }
        graphs = {role: to_onnx(modules[role], role=role, **shape) for role in ROLES}
        parity = check_parity(
            encoder=modules["encoder"], decoder=modules["decoder"], graphs=graphs, images=dataset.test
        )
        described = tuple(
            describe_graph(graphs[role], role=role, precision=PRECISION, opset=OPSET, **shape)
            for role in ROLES
        )
        manifest = Manifest(
            model=name,
            objective=config.objective,
            likelihood=train_state.likelihood.constants(),
            image=dataset.image,
            latent_dim=config.latent_dim,
            capabilities=train_state.objective.capabilities(),
            graphs=described,
            parity={PRECISION: parity},
            training=_training(run, dataset, progress, evaluation),
            resize=resize_of(config),
        )
        extras = _pictures(modules, dataset, latent_dim=config.latent_dim)
    card = model_card(
        manifest,
        data=run.record["data"],
        segments=run.segments,
        evaluation=evaluation,
        reproduce=reproducing_command(run),
        repeatability=repeatability(run),
    )
    extras["MODEL_CARD.md"] = card.encode()
    # The loss curves travel with the model; `compare` draws them.
    extras[METRICS_FILE] = "".join(json.dumps(line) + "\n" for line in run.read_metrics()).encode()
    try:
        folder = publish(models, manifest, {graph.file: graphs[graph.role] for graph in described}, extras)
    except OSError as error:
        raise ExportFailed(f"{models / name} cannot be written: {error.strerror}") from None
    return Exported(folder=folder, manifest=manifest)


def _training(
    run: RunFolder, dataset: Dataset, progress: TrainProgress, evaluation: dict[str, Any]
) -> Training:
    count = trained_images(run.config, len(dataset.train))
    steps_per_epoch = count // batch_size(run.config, count)
    return Training(
        dataset=_public_name(dataset.name),
        images=count,
        epochs=round(progress.step / steps_per_epoch, 4),
        seed=run.config.seed,
        commit=", ".join(filter(None, distinct(run.segments, "commit"))),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        libraries=libraries_of(run.segments),
        metrics={
            **published_metrics(evaluation),
            "training_seconds": round(progress.elapsed_s, 1),
            "training_precision": run.record["precision"],
            "training_device": ", ".join(distinct(run.segments, "device")),
            **_share(run, progress, count),
            **({} if progress.best_elbo is None else {BEST_EPOCH: progress.best_epoch}),
        },
    )


def _share(run: RunFolder, progress: TrainProgress, count: int) -> dict[str, float]:
    """Return how much of its training a run that has not ended has had; nothing of one that has."""
    if is_finished(run.config, progress, count):
        return {}
    # Rounded down: what has not ended is never 1.
    done = min(fraction_done(run.config, progress, count), 0.999)
    return {UNFINISHED: math.floor(1000 * done) / 1000}


def _public_name(dataset: str) -> str:
    """Return a data set's name, of a path the last part only: bundles travel, folders do not."""
    return Path(dataset).name or dataset


def _pictures(
    modules: Mapping[Role, torch.nn.Module], dataset: Dataset, *, latent_dim: int
) -> dict[str, bytes]:
    images = dataset.test[varied(len(dataset.test), dataset.test_labels, NUM_PICTURES)]
    mean_BZ = modules["encoder"](torch.from_numpy(images))[0]
    prior = np.random.default_rng(SAMPLE_SEED).standard_normal((NUM_PICTURES, latent_dim), dtype=np.float32)
    decoder = modules["decoder"]
    reconstructed: NDArray[np.uint8] = decoder(mean_BZ)[0].numpy()
    sampled: NDArray[np.uint8] = decoder(torch.from_numpy(prior))[0].numpy()
    side = min(dataset.image.height, dataset.image.width)
    return {
        "reconstructions.png": png(pairs(images, reconstructed, columns=COLUMNS), tile_side=side),
        "samples.png": png(grid(sampled, columns=COLUMNS), tile_side=side),
    }
