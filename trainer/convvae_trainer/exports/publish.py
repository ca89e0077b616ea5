"""Export: publish a trained run as a bundle with graphs, manifest, model card and pictures."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convvae_service.bundle import (
    METRICS_FILE,
    ROLES,
    Accuracy,
    BundleError,
    Manifest,
    Parity,
    Precision,
    Role,
    check_model_name,
    describe_graph,
    encode_trained_on,
    publish,
)
from convvae_trainer.data.dataset import Dataset, without_seen
from convvae_trainer.data.sources import resize_of
from convvae_trainer.errors import BadConfig, ExportFailed
from convvae_trainer.exports.graphs import OPSET, DecoderGraph, EncoderGraph, to_onnx
from convvae_trainer.exports.model_card import model_card
from convvae_trainer.exports.parity import check_parity
from convvae_trainer.exports.pictures import bundle_pictures
from convvae_trainer.exports.training_record import training_record
from convvae_trainer.runs.folder import RunFolder, write_obstacle
from convvae_trainer.runs.progress import TrainProgress
from convvae_trainer.runs.reproduce import repeatability, reproducing_commands
from convvae_trainer.step.train_state import TrainState

__all__ = ["MODEL_CARD", "Exported", "check_target", "export"]

MODEL_CARD = "MODEL_CARD.md"

PRECISION: Precision = "fp32"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A published version: its folder and its manifest."""

    folder: Path
    manifest: Manifest = field(repr=False)

    def to_json_object(self) -> dict[str, Any]:
        """Return the folder, the version, and the parity with PyTorch, as JSON types."""
        manifest = json.loads(self.manifest.to_json())
        return {
            "folder": str(self.folder),
            "model": manifest["model"],
            "version": int(self.folder.name),
            "parity": manifest["parity"],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Graphs:
    """The two modules of a model, and their ONNX bytes."""

    modules: dict[Role, nn.Module]
    onnx: dict[Role, bytes]
    has_log_variance: bool


def check_target(models: Path, name: str) -> None:
    """Check that `name` can be published under `models`, without writing anything.

    Raises:
        BadConfig: A model may not have this name, or the folder cannot be written.
    """
    try:
        check_model_name(name)
    except BundleError as error:
        raise BadConfig(f"--name: {error}") from None
    if reason := write_obstacle(models / name):
        raise BadConfig(f"--models: {models / name} cannot be written: {reason}")


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
    with_fingerprints: bool = True,
) -> Exported:
    """Publish the averaged weights as the next version of `name` under `models`.

    Args:
        run: The folder of the run.
        train_state: Networks and likelihood, on the CPU.
        dataset: The run's data, for the parity check and the pictures.
        progress: The progress of the run.
        evaluation: The metrics on the test images, as `Evaluation.to_json_object` returns them.
        models: The model repository.
        name: The name of the model.
        with_fingerprints: Whether the version has the fingerprints of the training images that the run keeps.

    Raises:
        BadConfig: The version cannot be published under this name.
        BadRun: The fingerprints in the run folder are damaged.
        ExportFailed: ONNX Runtime and PyTorch disagree, or the disk cannot be written; nothing was published.
        MissingExtra: A package is missing.
    """
    check_target(models, name)
    fingerprints = run.read_trained_on()
    # Weights that training started from may know images of this test part.
    dataset, _ = without_seen(dataset, {name: fingerprints})
    entry, trained_on = None, b""
    if with_fingerprints and fingerprints is not None:
        entry, trained_on = encode_trained_on(fingerprints)
    with train_state.ema.swapped_in():
        graphs = _make_graphs(train_state, dataset)
        parity = check_parity(
            encoder=graphs.modules["encoder"],
            decoder=graphs.modules["decoder"],
            graphs=graphs.onnx,
            images=dataset.test,
        )
        manifest = replace(
            _manifest(name, run, train_state, dataset, progress, evaluation, graphs, parity), trained_on=entry
        )
        files = bundle_pictures(graphs.modules, dataset, latent_dim=run.config.latent_dim)
    card = model_card(
        manifest,
        record=run.record,
        evaluation=evaluation,
        reproduce=reproducing_commands(run.record, with_paths=False),
        repeatability=repeatability(run.config, run.record),
    )
    files[MODEL_CARD] = card.encode()
    # The loss curves are part of the bundle: `compare` draws them.
    files[METRICS_FILE] = "".join(json.dumps(line) + "\n" for line in run.read_metrics()).encode()
    listed = {graph.file: graphs.onnx[graph.role] for graph in manifest.graphs}
    if entry is not None:
        listed[entry.file] = trained_on
    try:
        folder = publish(models, manifest, listed, files)
    except OSError as error:
        raise ExportFailed(f"{models / name} cannot be written: {error.strerror}") from None
    return Exported(folder=folder, manifest=manifest)


def _make_graphs(train_state: TrainState, dataset: Dataset) -> _Graphs:
    has_log_variance = train_state.objective.has_rate
    modules: dict[Role, nn.Module] = {
        "encoder": EncoderGraph(train_state.model),
        "decoder": DecoderGraph(train_state.model, train_state.likelihood),
    }
    onnx = {
        role: to_onnx(
            module,
            role=role,
            image=dataset.image,
            latent_dim=train_state.config.latent_dim,
            has_log_variance=has_log_variance,
        )
        for role, module in modules.items()
    }
    return _Graphs(modules=modules, onnx=onnx, has_log_variance=has_log_variance)


def _manifest(
    name: str,
    run: RunFolder,
    train_state: TrainState,
    dataset: Dataset,
    progress: TrainProgress,
    evaluation: dict[str, Any],
    graphs: _Graphs,
    parity: Parity,
) -> Manifest:
    config = run.config
    return Manifest(
        model=name,
        objective=config.objective,
        likelihood=train_state.likelihood.constants(),
        image=dataset.image,
        latent_dim=config.latent_dim,
        capabilities=train_state.objective.capabilities(),
        graphs=tuple(
            describe_graph(
                graphs.onnx[role],
                role=role,
                precision=PRECISION,
                opset=OPSET,
                image=dataset.image,
                latent_dim=config.latent_dim,
                has_log_variance=graphs.has_log_variance,
            )
            for role in ROLES
        ),
        parity={PRECISION: parity},
        accuracy={PRECISION: Accuracy.exact(has_elbo=graphs.has_log_variance)},
        training=training_record(run, dataset, progress, evaluation),
        resize=resize_of(config),
    )
