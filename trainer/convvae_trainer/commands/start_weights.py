"""The weights that `fit --from` names: read from a run folder, or out of the graphs of a published model."""

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convvae_service.bundle import (
    ROLES,
    BundleError,
    LikelihoodSpec,
    NoSuchVersion,
    read_bundle,
    read_trained_on,
    version_folder,
)
from convvae_trainer.commands.stored_run import StoredRun
from convvae_trainer.compute.device import enough_memory
from convvae_trainer.errors import BadConfig, BadRun, MissingExtra
from convvae_trainer.exports.training_record import SETTINGS
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.folder import holds_run
from convvae_trainer.runs.record import WeightsOrigin
from convvae_trainer.runs.start_weights import NETWORK_SETTINGS, StartWeights

__all__ = ["read_start_weights"]


def read_start_weights(reference: str) -> StartWeights:
    """Read the weights of a run or of a published model.

    Args:
        reference: A run folder, ROOT/MODEL, ROOT/MODEL@VERSION or the folder of a version.

    Raises:
        BadConfig: There is no run and no model, or the model has no weights that can be read.
        BadRun: The run or its checkpoint is damaged, or it trains no encoder yet.
        BundleError: The version is damaged.
    """
    path = Path(reference).expanduser()
    if holds_run(path):
        with enough_memory():
            return _weights_of_run(path)
    try:
        folder = version_folder(reference)
    except NoSuchVersion as error:
        raise BadConfig(f"--from: {reference} is no run folder, and {error}") from None
    try:
        return _weights_of_version(folder)
    except BundleError as error:
        raise BundleError(f"--from: {folder}: {error}") from None


def _weights_of_run(path: Path) -> StartWeights:
    stored = StoredRun.load(path)
    config, train_state = stored.folder.config, stored.train_state
    # The weights of a run that has ended are the best already.
    if not stored.has_ended:
        train_state.ema.restore_best()
    checkpoint = stored.folder.checkpoint
    try:
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    except OSError as error:
        raise BadRun(f"{checkpoint} cannot be read: {error.strerror}") from None
    return StartWeights(
        origin=WeightsOrigin(
            reference=str(path.absolute()),
            sha256=digest,
            step=stored.progress.step,
        ),
        image=stored.folder.record.data.image,
        objective=config.objective,
        likelihood=config.likelihood,
        has_rate=objective_class(config.objective).has_rate,
        settings={name: getattr(config, name) for name in NETWORK_SETTINGS},
        tensors=train_state.weights(),
        trained_on=stored.folder.read_trained_on(),
    )


def _weights_of_version(folder: Path) -> StartWeights:
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    if "fp32" not in manifest.precisions:
        raise BundleError("has no fp32 graphs: weights of other precisions are rounded")
    tensors = _likelihood_tensors(manifest.likelihood)
    for role in ROLES:
        tensors |= _graph_tensors(bundle.graphs[role, "fp32"], prefix=f"{role}.")
    recorded: Any = manifest.training.metrics.get(SETTINGS)
    recorded = recorded if isinstance(recorded, dict) else {}
    settings = {name: recorded[name] for name in NETWORK_SETTINGS if name in recorded}
    return StartWeights(
        origin=WeightsOrigin(reference=str(folder), sha256=bundle.sha256, step=None),
        image=manifest.image,
        objective=manifest.objective,
        likelihood=manifest.likelihood.name,
        has_rate=manifest.has_log_variance,
        # Versions that record no settings still have the latent dimension, and their tensors have shapes.
        settings={"latent_dim": manifest.latent_dim, **settings},
        tensors=tensors,
        trained_on=read_trained_on(folder, manifest),
    )


def _graph_tensors(graph: bytes, *, prefix: str) -> dict[str, Tensor]:
    """Return the weights in a graph that `export` made: its initialisers keep the names of the parameters."""
    try:
        import onnx
    except ImportError:
        raise MissingExtra("onnx") from None
    initializers = onnx.load_from_string(graph).graph.initializer
    tensors = {
        f"model.{each.name}": torch.from_numpy(onnx.numpy_helper.to_array(each).copy())
        for each in initializers
        if each.name.startswith(prefix)
    }
    if not tensors:
        raise BundleError(f"its {prefix}onnx has no weights by the names that convvae-train export gives")
    return tensors


def _likelihood_tensors(likelihood: LikelihoodSpec) -> dict[str, Tensor]:
    """Return the parameter of a likelihood that learns one."""
    found = {"likelihood.log_sigma": likelihood.sigma, "likelihood.log_scale": likelihood.scale}
    return {name: torch.tensor(math.log(value)) for name, value in found.items() if value is not None}
