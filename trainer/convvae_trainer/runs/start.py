"""The start of a run: created in a new folder, resumed from its checkpoint, or loaded to be used."""

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import torch

from convvae_service.bundle import TrainedOn, encode_trained_on
from convvae_trainer.compute.device import gpu_name, pick_device
from convvae_trainer.compute.precision import autocast_dtype, choose_precision
from convvae_trainer.compute.process import check_process
from convvae_trainer.data.trained_on import fingerprints
from convvae_trainer.errors import BadRun
from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.runs.context import RunContext
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.progress import TrainProgress, fraction_done
from convvae_trainer.runs.provenance import code_commit, hardware, library_versions
from convvae_trainer.runs.record import DataRecord, RunRecord, RunSegment
from convvae_trainer.step.train_state import TrainState

__all__ = ["create_run", "load_run", "resume_run"]


def create_run(context: RunContext, run_dir: Path) -> tuple[RunFolder, TrainState, TrainProgress]:
    """Return a new run in a new or empty folder; of several processes the first one makes the folder.

    Raises:
        BadConfig: This process is not configured for the run (see `compute.process`).
        BadRun: The folder is not empty, or cannot be written.
    """
    config, dist = context.config, context.dist
    threads = config.threads or torch.get_num_threads()
    check_process(threads=threads, device=context.device, is_compiled=config.compile)
    values: dict[str, Any] = {}
    if dist.is_first:
        precision = choose_precision(config.precision, context.device)
        entry, trained_on = _fingerprints(context)
        record = RunRecord(
            command=context.command,
            precision=precision.name,
            threads=threads,
            reason=precision.reason,
            data=DataRecord.of(context.dataset, entry),
            segments=(_segment(context, step=0),),
        )
        RunFolder.create(run_dir, config=config, record=record, trained_on=trained_on)
        values = record.to_json_object()
    record = RunRecord.from_json_object(dist.broadcast(values))
    run = RunFolder(run_dir, config=config, record=record)
    return run, _make_train_state(context, run), TrainProgress()


def resume_run(context: RunContext, run_dir: Path) -> tuple[RunFolder, TrainState, TrainProgress]:
    """Return the run in a folder, in the state of its checkpoint, or at its start if it has none yet.

    Raises:
        BadConfig: This process is not configured for the run (see `compute.process`).
        BadRun: The folder holds no run or another one, or its files are damaged.
    """
    config, dist = context.config, context.dist
    run = RunFolder.open(run_dir)
    run.check_same(config, context.dataset)
    check_process(threads=run.record.threads, device=context.device, is_compiled=config.compile)
    train_state = _make_train_state(context, run)
    progress = _restore(run, train_state) if run.checkpoint.exists() else TrainProgress()
    # All processes have read the checkpoint before the first one writes to the folder.
    dist.wait()
    if dist.is_first:
        run.discard_leftovers()
        run.rewind_metrics(step=progress.step)
        # A finished run is not trained further, so it has no new segment.
        if fraction_done(config, progress, len(context.dataset.train)) < 1:
            run.begin_segment(_segment(context, step=progress.step))
    context.console.print(f"resuming at step {progress.step}", highlight=False)
    return run, train_state, progress


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
    try:
        progress = TrainProgress(**state["progress"])
    except (KeyError, TypeError):
        raise BadRun(f"{run.checkpoint} is damaged: it does not say where training stopped") from None
    train_state.restore(tensors, num_steps=progress.step)
    return progress


def _fingerprints(context: RunContext) -> tuple[TrainedOn | None, bytes]:
    """Return the entry and the file of the fingerprints; None and no bytes if the run keeps none."""
    if not context.config.fingerprints:
        return None, b""
    return encode_trained_on(fingerprints(context.dataset.train))


def _segment(context: RunContext, *, step: int) -> RunSegment:
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
    )
