"""The start of a run: created in a new folder, resumed from its checkpoint, or loaded to be used."""

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convvae_service.bundle import TrainedOn, encode_trained_on
from convvae_trainer.compute.device import gpu_name, pick_device
from convvae_trainer.compute.precision import autocast_dtype, choose_precision
from convvae_trainer.compute.process import check_process
from convvae_trainer.console import say
from convvae_trainer.data.trained_on import fingerprints
from convvae_trainer.errors import BadRun
from convvae_trainer.runs.checkpoint import read_checkpoint, read_state, write_checkpoint
from convvae_trainer.runs.context import RunContext
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.new_end import check_new_end, has_new_end, new_end_text
from convvae_trainer.runs.progress import TrainProgress, fraction_done
from convvae_trainer.runs.provenance import code_commit, hardware, library_versions
from convvae_trainer.runs.record import DataRecord, RunRecord, RunSegment
from convvae_trainer.runs.start_weights import StartWeights
from convvae_trainer.step.train_state import TrainState

__all__ = ["create_run", "load_run", "read_progress", "resume_run"]


def create_run(
    context: RunContext, run_dir: Path, *, weights: StartWeights | None = None
) -> tuple[RunFolder, TrainState, TrainProgress]:
    """Return a new run in a new or empty folder; of several processes the first one makes the folder.

    Args:
        context: The inputs of the run.
        run_dir: The folder.
        weights: Weights to start from. None: random ones.

    Raises:
        BadConfig: This process is not configured for the run (see `compute.process`), or the weights are
            those of other networks.
        BadRun: The folder is not empty, or cannot be written.
    """
    config, dist = context.config, context.dist
    threads = config.threads or torch.get_num_threads()
    check_process(threads=threads, device=context.device, is_compiled=config.compile)
    values: dict[str, Any] = {}
    if dist.is_first:
        precision = choose_precision(config.precision, context.device)
        entry, trained_on = _fingerprints(context, weights)
        record = RunRecord(
            command=context.command,
            precision=precision.name,
            threads=threads,
            reason=precision.reason,
            data=DataRecord.of(context.dataset, entry),
            segments=(_segment(context, step=0),),
            weights_from=None if weights is None else weights.origin,
        )
        RunFolder.create(run_dir, config=config, record=record, trained_on=trained_on)
        values = record.to_json_object()
    record = RunRecord.from_json_object(dist.broadcast(values))
    run = RunFolder(run_dir, config=config, record=record)
    train_state, progress = _make_train_state(context, run), TrainProgress()
    if weights is not None:
        fresh = train_state.start_from(weights.tensors)
        say(context.console, _weights_text(weights, fresh))
        if dist.is_first:
            # A run that is killed before its first step starts from these weights too.
            _save(run, train_state, progress)
    return run, train_state, progress


def resume_run(
    context: RunContext, run_dir: Path, *, extend: bool = False
) -> tuple[RunFolder, TrainState, TrainProgress]:
    """Return the run in a folder, in the state of its checkpoint, or at its start if it has none yet.

    Args:
        context: The inputs of the run.
        run_dir: The folder of the run.
        extend: Whether the run gets the end of the settings, if that is another one.

    Raises:
        BadConfig: This process is not configured for the run (see `compute.process`).
        BadRun: The folder holds no run or another one, its files are damaged, or it cannot have this end.
    """
    config, dist = context.config, context.dist
    run = RunFolder.open(run_dir)
    run.check_same(config, context.dataset, may_extend=extend)
    check_process(threads=run.record.threads, device=context.device, is_compiled=config.compile)
    train_state = _make_train_state(context, run)
    progress = _restore(run, train_state) if run.checkpoint.exists() else TrainProgress()
    is_extended = extend and has_new_end(run.config, config, progress)
    if is_extended:
        check_new_end(run.config, config, progress, num_images=len(context.dataset.train))
    # All processes have read the checkpoint before the first one writes to the folder.
    dist.wait()
    follows_end = is_extended and progress.is_finished
    if dist.is_first:
        run.discard_leftovers()
        run.rewind_metrics(step=progress.step)
    if is_extended:
        _extend(context, run, train_state, progress)
    # A finished run is not trained further, so it has no new segment.
    if dist.is_first and fraction_done(config, progress, len(context.dataset.train)) < 1:
        run.begin_segment(_segment(context, step=progress.step, follows_end=follows_end))
    say(context.console, f"resuming at step {progress.step}")
    return run, train_state, progress


def _extend(context: RunContext, run: RunFolder, train_state: TrainState, progress: TrainProgress) -> None:
    """Give a run the end of the settings. A process that is killed here has changed all or nothing."""
    progress.is_stopped = progress.is_finished = False
    progress.patience_epoch = progress.epoch
    if context.dist.is_first:
        # The checkpoint first: with the settings before, a resume finishes it as it was.
        if run.checkpoint.exists():
            _save(run, train_state, progress)
        run.move_end(context.config)
    num_images = len(context.dataset.train)
    say(context.console, new_end_text(context.config, progress, num_images=num_images))


def load_run(run_dir: Path, *, device: str | None = "cpu") -> tuple[RunFolder, TrainState, TrainProgress]:
    """Return a run with the weights of its checkpoint, in float32.

    Args:
        run_dir: Folder of the run.
        device: Where to compute. None: the device of the run's settings.

    Raises:
        BadRun: There is no run, or no checkpoint that can be read.
    """
    run = RunFolder.open(run_dir)
    where = pick_device(device or run.config.device)
    train_state = TrainState(run.config, shape=run.record.data.image.as_tuple, device=where)
    return run, train_state, _restore(run, train_state)


def _make_train_state(context: RunContext, run: RunFolder) -> TrainState:
    # A resumed run may switch CUDA graphs on or off.
    return TrainState(
        dataclasses.replace(run.config, cuda_graph=context.config.cuda_graph),
        shape=context.dataset.image.as_tuple,
        device=context.device,
        autocast=autocast_dtype(run.record.precision),
        dist=context.dist,
    )


def _restore(run: RunFolder, train_state: TrainState) -> TrainProgress:
    """Restore the weights and all other state from the checkpoint; return the progress in it."""
    tensors, state = read_checkpoint(run.checkpoint)
    progress = _progress_of(run, state)
    train_state.restore(tensors, num_steps=progress.step)
    return progress


def _save(run: RunFolder, train_state: TrainState, progress: TrainProgress) -> None:
    write_checkpoint(run.checkpoint, train_state.tensors(), {"progress": dataclasses.asdict(progress)})


def _weights_text(weights: StartWeights, fresh: list[str]) -> str:
    text = f"weights    those of {weights.origin}"
    if fresh:
        text += f"; random ones in {', '.join(fresh)}"
    if weights.trained_on is None:
        text += (
            "; the images that they were trained on are not known: they may be among the test images, and"
            " this run keeps no fingerprints either"
        )
    return text


def _fingerprints(context: RunContext, weights: StartWeights | None) -> tuple[TrainedOn | None, bytes]:
    """Return the entry and the file of the fingerprints; None and no bytes if the run keeps none.

    The images that the first weights were trained on count too. If they are not known, the run keeps none.
    """
    if not context.config.fingerprints or (weights is not None and weights.trained_on is None):
        return None, b""
    known = fingerprints(context.dataset.train)
    if weights is not None and weights.trained_on is not None:
        known = np.union1d(known, weights.trained_on)
    return encode_trained_on(known)


def read_progress(run: RunFolder) -> TrainProgress:
    """Return the progress in the checkpoint of a run, without its weights; that of the start without one.

    Raises:
        BadRun: The checkpoint cannot be read.
    """
    return _progress_of(run, read_state(run.checkpoint)) if run.checkpoint.exists() else TrainProgress()


def _progress_of(run: RunFolder, state: Mapping[str, Any]) -> TrainProgress:
    try:
        return TrainProgress(**state["progress"])
    except (KeyError, TypeError):
        raise BadRun(f"{run.checkpoint} is damaged: it does not say where training stopped") from None


def _segment(context: RunContext, *, step: int, follows_end: bool = False) -> RunSegment:
    """Return the segment that this machine computes from `step` on."""
    return RunSegment(
        step=step,
        command=context.command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=code_commit(),
        libraries=library_versions(),
        hardware=", ".join(filter(None, (hardware(), gpu_name(context.device)))),
        device=str(context.device),
        processes=context.dist.size,
        epochs=context.config.total_epochs,
        minutes=context.config.minutes,
        follows_end=follows_end,
    )
