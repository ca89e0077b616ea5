"""A run from settings to figures: prepare or resume, train, evaluate."""

import dataclasses
import datetime
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from convvae_trainer.board import NUM_PICTURES, Board, opened_board
from convvae_trainer.checkpoint import read_checkpoint
from convvae_trainer.config import Config
from convvae_trainer.data import Dataset, hold_out_validation
from convvae_trainer.device import (
    Computation,
    autocast_of,
    choose_computation,
    enough_memory,
    gpu_name,
    keep_freed_memory,
    pick_device,
)
from convvae_trainer.distributed import ALONE, World
from convvae_trainer.errors import BadConfig, BadData, BadRun
from convvae_trainer.evaluate import FURTHER, Evaluation, evaluate
from convvae_trainer.learner import Learner, trial_of
from convvae_trainer.leg import Leg
from convvae_trainer.position import Position, batch_size, fraction_done
from convvae_trainer.provenance import code_commit, hardware, library_versions
from convvae_trainer.run_folder import RunFolder, describe_data, read_evaluation
from convvae_trainer.selection import varied
from convvae_trainer.train import CHECKPOINT_EVERY_S, train

__all__ = ["Fitted", "fit", "load_run"]

# Images in a trial of precision and threads: a batch of small ones, a few of large ones. A batch of 128 took
# 27 s to measure at 128x128x3.
TRIAL_IMAGES = 16
TRIAL_VALUES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A run with its weights in memory."""

    run: RunFolder
    learner: Learner
    position: Position
    evaluation: Evaluation


def fit(
    config: Config,
    dataset: Dataset,
    run_dir: Path,
    *,
    resume: bool = False,
    command: str = "",
    console: Console | None = None,
    world: World = ALONE,
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
        world: The processes that train together; each calls this with the same arguments.
        checkpoint_every_s: Seconds between two checkpoints, at the least.

    Raises:
        BadConfig: The processes cannot share a batch, or the device is not there.
        BadData: The processes have different images.
        BadRun: The folder is taken; or it holds no run, another one, or a damaged checkpoint; or the disk is
            full.
        Interrupted: A signal asked to stop; a checkpoint was saved first.
    """
    if console is None or not world.is_first:
        console = Console(quiet=True)
    images, validation = dataset.train, None
    if config.early_stop_epochs is not None:
        images, validation = hold_out_validation(dataset.train)
    _check_shares(config, dataset, len(images), world)
    with _in_words(run_dir):
        device = world.device(pick_device(config.device))
        if device.type == "cpu":
            keep_freed_memory()
        run, learner, position = _begin(
            config,
            dataset,
            run_dir,
            resume=resume,
            command=command,
            console=console,
            device=device,
            world=world,
            count=len(images),
        )
        step_before = position.step
        _announce(console, run, learner, dataset, validation=0 if validation is None else len(validation))
        with _board(run, learner, dataset, position, console) as board:
            train(
                run,
                learner,
                images,
                position,
                console=console,
                validation_NHWC=validation,
                board=board,
                checkpoint_every_s=checkpoint_every_s,
            )
        learner.end_steps()
        evaluation = None
        if world.is_first:
            evaluation = evaluate(
                learner,
                dataset.test,
                dataset=dataset.name,
                split=dataset.split,
                binarize=config.binarize,
                seed=config.seed,
            )
            figures = evaluation.to_json_object()
            if position.step == step_before:
                # The weights are those of the kept figures, of which some took hours.
                kept = read_evaluation(run) or {}
                figures |= {name: kept[name] for name in FURTHER if kept.get(name) is not None}
            run.write_evaluation(figures)
        evaluation = world.share(evaluation)
        assert evaluation is not None
        return Fitted(run=run, learner=learner, position=position, evaluation=evaluation)


def _check_shares(config: Config, dataset: Dataset, count: int, world: World) -> None:
    """Refuse, before any work, batches that the processes cannot share equally, and images that differ."""
    if (size := batch_size(config, count)) % world.size:
        raise BadConfig(
            f"a batch of {size} images cannot be shared equally by {world.size} processes: make batch_size,"
            f" which {count} training images may limit, a multiple of {world.size}"
        )
    if world.size > 1 and len(set(world.gather(dataset.fingerprint()))) > 1:
        raise BadData(
            f"the processes have read different images of {dataset.name}: every machine needs the same data"
        )


@contextmanager
def _board(
    run: RunFolder, learner: Learner, dataset: Dataset, position: Position, console: Console
) -> Iterator[Board | None]:
    """Open TensorBoard's files in the first process, where the run writes them."""
    if not run.config.tensorboard or not learner.world.is_first:
        yield None
        return
    folder = run.path / "tensorboard"
    images = dataset.test[varied(len(dataset.test), dataset.test_labels, NUM_PICTURES)]
    with opened_board(folder, learner, images, step=position.step, console=console) as board:
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
    world: World,
    count: int,
) -> tuple[RunFolder, Learner, Position]:
    """Return the run to go on with, or a new one; in several processes the first makes it.

    `count` is how many images are trained on.
    """
    if resume:
        run = RunFolder.open(run_dir)
        run.check_same(config, dataset)
        if world.is_first:
            run.discard_leftovers()
        torch.set_num_threads(run.record["threads"])
        learner = _learner(run, dataset, device, world, cuda_graph=config.cuda_graph)
        position = _restore(run, learner, required=False)
        world.wait()
        if world.is_first:
            run.rewind_metrics(step=position.step)
            # A run that has ended is trained no further, whatever evaluates it.
            if fraction_done(config, position, count) < 1:
                taken = {name: run.record[name] for name in ("precision", "threads")}
                run.begin_leg(_leg(position.step, command, device, world, taken))
        console.print(f"resuming at step {position.step}", highlight=False)
        return run, learner, position
    record: dict[str, Any] = {}
    if world.is_first:
        computation = _computation(config, dataset, device, console, processes=world.local_size)
        # The learners that were measured with refer to themselves, and hold memory of the device.
        gc.collect()
        taken = asdict(computation)
        reason = taken.pop("reason")
        leg = asdict(_leg(0, command, device, world, taken))
        start = {name: value for name, value in leg.items() if name != "step"}
        record = {**start, "reason": reason, "data": describe_data(dataset), "legs": [leg]}
        RunFolder.create(run_dir, config=config, record=record)
    # One process measures for all.
    run = RunFolder(run_dir, config=config, record=world.share(record))
    torch.set_num_threads(run.record["threads"])
    learner = _learner(run, dataset, device, world, cuda_graph=config.cuda_graph)
    return run, learner, Position()


def _leg(step: int, command: str, device: torch.device, world: World, computation: dict[str, Any]) -> Leg:
    """Return what computes from `step` on: this machine, as it is now."""
    return Leg(
        step=step,
        command=command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=code_commit(),
        libraries=library_versions(),
        hardware=", ".join([hardware(), *gpu_name(device)]),
        device=str(device),
        processes=world.size,
        **computation,
    )


@contextmanager
def _in_words(run_dir: Path) -> Iterator[None]:
    """Say a disk that is full or cannot be written, and memory that is short, in one line."""
    try:
        with enough_memory():
            yield
    except OSError as error:
        raise BadRun(
            f"run folder {run_dir} cannot be written: {error.strerror or error}; the last checkpoint is kept"
        ) from None


def load_run(run_dir: Path, *, device: str | None = "cpu") -> tuple[RunFolder, Learner, Position]:
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
    learner = Learner(run.config, shape=(height, width, channels), device=where)
    return run, learner, _restore(run, learner, required=True)


def _learner(
    run: RunFolder, dataset: Dataset, device: torch.device, world: World, *, cuda_graph: bool
) -> Learner:
    config = dataclasses.replace(run.config, cuda_graph=cuda_graph)
    autocast = autocast_of(run.record["precision"])
    return Learner(config, shape=dataset.image.as_tuple, device=device, autocast=autocast, world=world)


def _restore(run: RunFolder, learner: Learner, *, required: bool) -> Position:
    if not required and not run.checkpoint.exists():
        return Position()
    tensors, state = read_checkpoint(run.checkpoint)
    try:
        position = Position(**state["position"])
    except (KeyError, TypeError):
        raise BadRun(f"{run.checkpoint} does not say where the run stopped") from None
    learner.restore(tensors, num_steps=position.step)
    return position


def _computation(
    config: Config, dataset: Dataset, device: torch.device, console: Console, *, processes: int
) -> Computation:
    # Compiling each candidate would take minutes.
    config = dataclasses.replace(config, compile=False)
    count = min(config.batch_size, max(TRIAL_IMAGES, TRIAL_VALUES // dataset.image.num_values))
    batch = torch.from_numpy(dataset.train[:count]).permute(0, 3, 1, 2).contiguous().to(device)
    return choose_computation(
        precision=config.precision,
        threads=config.threads,
        device=device,
        trial=trial_of(partial(Learner, config, shape=dataset.image.as_tuple, device=device), batch),
        processes=processes,
        announce=lambda: console.print("measuring precision and threads …", highlight=False),
    )


def _announce(
    console: Console, run: RunFolder, learner: Learner, dataset: Dataset, *, validation: int
) -> None:
    record: dict[str, Any] = run.record
    config = run.config
    lines = (
        f"data       {dataset.name}: {len(dataset.train)} training images of {dataset.image}",
        f"test       {dataset.split}",
        *([f"validation {validation} of the training images, for early stopping"] if validation else []),
        f"model      {learner.model.num_parameters():,} parameters, {config.latent_dim} latent dimensions",
        f"objective  {_objective_in_words(config)}",
        f"device     {learner.device}, {record['precision']}, CPU threads {record['threads']}"
        + (", channels last" if learner.is_channels_last else ", channels first")
        + (", CUDA graphs" if learner.is_recorded else "")
        + (f", {learner.world.size} processes" if learner.world.size > 1 else ""),
        f"           ({record['reason']})",
        f"run        {run.path}",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _objective_in_words(config: Config) -> str:
    words = [config.objective, f"{config.likelihood} likelihood"]
    if config.sigma is not None:
        words.append(f"sigma {config.sigma:g}")
    if config.objective != "ae" and config.importance_samples == 1:
        words.append(f"beta {config.beta:g}")
    if config.terms != "both":
        words.append(f"{config.terms} alone")
    if config.importance_samples > 1:
        words.append(f"{config.importance_samples} importance samples")
    if config.is_adversarial:
        words.append(f"{config.adversarial_loss} loss")
    return ", ".join(words)
