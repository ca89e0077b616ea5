"""A run from settings to figures: prepare or resume, train, evaluate."""

import dataclasses
import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from convvae_trainer.compute.device import enough_memory, gpu_name, pick_device
from convvae_trainer.compute.distributed import SINGLE_PROCESS, DistContext
from convvae_trainer.compute.precision import autocast_dtype, choose_precision
from convvae_trainer.compute.process import check_process
from convvae_trainer.data.dataset import Dataset, hold_out_validation
from convvae_trainer.data.selection import varied
from convvae_trainer.errors import BadConfig, BadData, BadRun
from convvae_trainer.evaluation.metrics import OPTIONAL_METRICS, Evaluation, evaluate
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.runs.folder import RunFolder, describe_data, read_evaluation
from convvae_trainer.runs.loop import CHECKPOINT_EVERY_S, train
from convvae_trainer.runs.progress import TrainProgress, batch_size, fraction_done
from convvae_trainer.runs.provenance import code_commit, hardware, library_versions
from convvae_trainer.runs.segments import RunSegment
from convvae_trainer.runs.tensorboard import NUM_PICTURES, TensorBoardWriter, opened_tensorboard
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState

__all__ = ["Fitted", "fit", "load_run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A run with its weights in memory."""

    run: RunFolder
    train_state: TrainState
    progress: TrainProgress
    evaluation: Evaluation


def fit(
    config: Config,
    dataset: Dataset,
    run_dir: Path,
    *,
    resume: bool = False,
    command: str = "",
    console: Console | None = None,
    dist: DistContext = SINGLE_PROCESS,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> Fitted:
    """Train as `config` says, keep everything in `run_dir`, and evaluate on the test images.

    Args:
        config: The run's settings.
        dataset: What `config` names, loaded.
        run_dir: A new or empty folder, or with `resume` that of the run to go on with.
        resume: Go on from the run's checkpoint; from its start if it was stopped before the first one.
        command: What was typed, for the record.
        console: Where progress is shown, by the first process.
        dist: The processes that train together; each calls this with the same arguments.
        checkpoint_every_s: Seconds between two checkpoints, at the least.

    Raises:
        BadConfig: The processes cannot share a batch, or the device is not there.
        BadData: The processes have different images.
        BadRun: The folder is taken; or it holds no run, another one, or a damaged checkpoint; or the disk is
            full.
        Interrupted: A signal asked to stop; a checkpoint was saved first.
    """
    if console is None or not dist.is_first:
        console = Console(quiet=True)
    images, validation = dataset.train, None
    if config.early_stop_epochs is not None:
        images, validation = hold_out_validation(dataset.train)
    _check_shares(config, dataset, len(images), dist)
    with _friendly_errors(run_dir):
        device = dist.device(pick_device(config.device))
        run, train_state, progress = _begin(
            config,
            dataset,
            run_dir,
            resume=resume,
            command=command,
            console=console,
            device=device,
            dist=dist,
            count=len(images),
        )
        step_before = progress.step
        _announce(console, run, train_state, dataset, validation=0 if validation is None else len(validation))
        with _board(run, train_state, dataset, progress, console) as board:
            train(
                run,
                train_state,
                images,
                progress,
                console=console,
                validation_NHWC=validation,
                board=board,
                checkpoint_every_s=checkpoint_every_s,
            )
        train_state.free_graphs()
        evaluation = None
        if dist.is_first:
            evaluation = evaluate(
                train_state,
                dataset.test,
                dataset=dataset.name,
                split=dataset.split,
                binarize=config.binarize,
                seed=config.seed,
            )
            figures = evaluation.to_json_object()
            if progress.step == step_before:
                # The weights are those of the kept figures, of which some took hours.
                kept = read_evaluation(run) or {}
                figures |= {name: kept[name] for name in OPTIONAL_METRICS if kept.get(name) is not None}
            run.write_evaluation(figures)
        evaluation = dist.broadcast(evaluation)
        assert evaluation is not None
        return Fitted(run=run, train_state=train_state, progress=progress, evaluation=evaluation)


def _check_shares(config: Config, dataset: Dataset, count: int, dist: DistContext) -> None:
    """Refuse, before any work, batches that the processes cannot share equally, and images that differ."""
    if (size := batch_size(config, count)) % dist.size:
        raise BadConfig(
            f"a batch of {size} images cannot be shared equally by {dist.size} processes: make batch_size,"
            f" which {count} training images may limit, a multiple of {dist.size}"
        )
    if dist.size > 1 and len(set(dist.gather(dataset.fingerprint()))) > 1:
        raise BadData(
            f"the processes have read different images of {dataset.name}: every machine needs the same data"
        )


@contextmanager
def _board(
    run: RunFolder, train_state: TrainState, dataset: Dataset, progress: TrainProgress, console: Console
) -> Iterator[TensorBoardWriter | None]:
    """Open TensorBoard's files in the first process, where the run writes them."""
    if not run.config.tensorboard or not train_state.dist.is_first:
        yield None
        return
    folder = run.path / "tensorboard"
    images = dataset.test[varied(len(dataset.test), dataset.test_labels, NUM_PICTURES)]
    with opened_tensorboard(folder, train_state, images, step=progress.step, console=console) as board:
        yield board


def _begin(
    config: Config,
    dataset: Dataset,
    run_dir: Path,
    *,
    resume: bool,
    command: str,
    console: Console,
    device: torch.device,
    dist: DistContext,
    count: int,
) -> tuple[RunFolder, TrainState, TrainProgress]:
    """Return the run to go on with, or a new one; in several processes the first makes it.

    `count` is how many images are trained on.
    """
    if resume:
        run = RunFolder.open(run_dir)
        run.check_same(config, dataset)
        if dist.is_first:
            run.discard_leftovers()
        check_process(threads=run.record["threads"], device=device, is_compiled=config.compile)
        train_state = _make_train_state(run, dataset, device, dist, cuda_graph=config.cuda_graph)
        progress = _restore(run, train_state, required=False)
        dist.wait()
        if dist.is_first:
            run.rewind_metrics(step=progress.step)
            # A run that has ended is trained no further, whatever evaluates it.
            if fraction_done(config, progress, count) < 1:
                taken = {name: run.record[name] for name in ("precision", "threads")}
                run.begin_segment(_segment(progress.step, command, device, dist, taken))
        console.print(f"resuming at step {progress.step}", highlight=False)
        return run, train_state, progress
    record: dict[str, Any] = {}
    threads = config.threads or torch.get_num_threads()
    check_process(threads=threads, device=device, is_compiled=config.compile)
    if dist.is_first:
        precision = choose_precision(config.precision, device)
        taken = {"precision": precision.name, "threads": threads}
        reason = precision.reason
        segment = asdict(_segment(0, command, device, dist, taken))
        start = {name: value for name, value in segment.items() if name != "step"}
        record = {**start, "reason": reason, "data": describe_data(dataset), "segments": [segment]}
        RunFolder.create(run_dir, config=config, record=record)
    run = RunFolder(run_dir, config=config, record=dist.broadcast(record))
    train_state = _make_train_state(run, dataset, device, dist, cuda_graph=config.cuda_graph)
    return run, train_state, TrainProgress()


def _segment(
    step: int, command: str, device: torch.device, dist: DistContext, computation: dict[str, Any]
) -> RunSegment:
    """Return what computes from `step` on: this machine, as it is now."""
    return RunSegment(
        step=step,
        command=command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=code_commit(),
        libraries=library_versions(),
        hardware=", ".join(filter(None, (hardware(), gpu_name(device)))),
        device=str(device),
        processes=dist.size,
        **computation,
    )


@contextmanager
def _friendly_errors(run_dir: Path) -> Iterator[None]:
    """Say a disk that is full or cannot be written, and memory that is short, in one line."""
    try:
        with enough_memory():
            yield
    except OSError as error:
        raise BadRun(
            f"run folder {run_dir} cannot be written: {error.strerror or error}; the last checkpoint is kept"
        ) from None


def load_run(run_dir: Path, *, device: str | None = "cpu") -> tuple[RunFolder, TrainState, TrainProgress]:
    """Return a run with the weights of its checkpoint.

    Args:
        run_dir: The run's folder.
        device: Where to compute. None: as the run's settings say.

    Raises:
        BadRun: There is no run, or no checkpoint that can be read.
    """
    run = RunFolder.open(run_dir)
    height, width, channels = run.record["data"]["image"]
    where = pick_device(device or run.config.device)
    train_state = TrainState(run.config, shape=(height, width, channels), device=where)
    return run, train_state, _restore(run, train_state, required=True)


def _make_train_state(
    run: RunFolder, dataset: Dataset, device: torch.device, dist: DistContext, *, cuda_graph: bool
) -> TrainState:
    config = dataclasses.replace(run.config, cuda_graph=cuda_graph)
    autocast = autocast_dtype(run.record["precision"])
    return TrainState(config, shape=dataset.image.as_tuple, device=device, autocast=autocast, dist=dist)


def _restore(run: RunFolder, train_state: TrainState, *, required: bool) -> TrainProgress:
    if not required and not run.checkpoint.exists():
        return TrainProgress()
    tensors, state = read_checkpoint(run.checkpoint)
    try:
        progress = TrainProgress(**state["progress"])
    except (KeyError, TypeError):
        raise BadRun(f"{run.checkpoint} does not say where the run stopped") from None
    train_state.restore(tensors, num_steps=progress.step)
    return progress


def _announce(
    console: Console, run: RunFolder, train_state: TrainState, dataset: Dataset, *, validation: int
) -> None:
    record: dict[str, Any] = run.record
    config = run.config
    parameters = train_state.model.num_parameters()
    lines = (
        f"data       {dataset.name}: {len(dataset.train)} training images of {dataset.image}",
        f"test       {dataset.split}",
        *([f"validation {validation} of the training images, for early stopping"] if validation else []),
        f"model      {parameters:,} parameters, {config.latent_dim} latent dimensions",
        f"objective  {objective_class(config.objective).describe(config)}",
        f"device     {train_state.device}, {record['precision']}, CPU threads {record['threads']}"
        + (", channels last" if train_state.is_channels_last else ", channels first")
        + (", CUDA graphs" if train_state.is_graphed else "")
        + (f", {train_state.dist.size} processes" if train_state.dist.size > 1 else ""),
        f"           ({record['reason']})",
        f"run        {run.path}",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
