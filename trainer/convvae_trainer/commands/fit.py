"""Fit a model as the command `fit` does: train, evaluate, and export where a target is given."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from convvae_trainer.compute.device import pick_device
from convvae_trainer.compute.distributed import DistContext, joined
from convvae_trainer.compute.process import configure_process, default_threads
from convvae_trainer.console import say
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.sources import with_absolute_paths
from convvae_trainer.data.trained_on import left_out_text, unseen
from convvae_trainer.errors import BadRun, ExportFailed, Interrupted
from convvae_trainer.evaluation.metrics import Evaluation
from convvae_trainer.exports.publish import Exported, check_target, export
from convvae_trainer.runs.fit import Fitted, fit
from convvae_trainer.runs.folder import RunFolder, check_new, write_obstacle
from convvae_trainer.runs.lock import check_unlocked
from convvae_trainer.runs.new_end import check_new_end, has_new_end
from convvae_trainer.runs.progress import TrainProgress
from convvae_trainer.runs.signals import Stopped
from convvae_trainer.runs.start import load_run, read_progress
from convvae_trainer.runs.start_weights import StartWeights
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState
from convvae_trainer.streams import check_utf8

__all__ = ["ExportTarget", "FitResult", "run_fit"]


@dataclass(frozen=True, slots=True)
class ExportTarget:
    """The place of an exported model: a model repository, and the model's name in it."""

    models: Path
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """The figures of a run on its test images, and the exported version if there is one."""

    evaluation: Evaluation
    exported: Exported | None

    def to_json_object(self) -> dict[str, Any]:
        """Return the figures as JSON types, and the folder of the exported version or None."""
        exported = None if self.exported is None else str(self.exported.folder)
        return {"evaluation": self.evaluation.to_json_object(), "exported": exported}


def run_fit(
    config: Config,
    run_dir: Path,
    *,
    resume: bool,
    extend: bool = False,
    weights: StartWeights | None = None,
    dataset: Dataset | None = None,
    download: bool,
    target: ExportTarget | None,
    command: str,
    console: Console,
    is_command: bool = True,
    catch_signals: bool = True,
) -> FitResult | None:
    """Train and evaluate, then export to `target`.

    All that can be refused is refused before training. Of several processes that torchrun started, the first
    one exports and returns a result; the others return None.

    Args:
        config: The settings of the run.
        run_dir: The run folder: a new one, or with `resume` an existing one.
        resume: Whether to continue the run in the folder.
        extend: Whether the resumed run gets the epochs or minutes of `config`, if they are others.
        weights: Weights that a new run starts from. None: random ones.
        dataset: The data set that `config` names, if it is in memory.
        download: Whether to download a torchvision set that is absent.
        target: The place to export to; None exports nothing.
        command: The command line, which the run folder records.
        console: The screen for progress.
        is_command: Whether the process is that of the command: it then keeps memory that training has freed.
        catch_signals: Whether signals that stop the run save a checkpoint first.

    Raises:
        BadRun: The run folder cannot be used.
        BadData: The data set is missing, damaged, or another one than that of the resumed run.
        BadConfig: The settings differ from those of the resumed run, or do not fit data or hardware.
        Interrupted: A signal stopped the training; a checkpoint is saved.
    """
    check_unlocked(run_dir)
    if resume:
        if reason := write_obstacle(run_dir):
            raise BadRun(f"run folder {run_dir} cannot be written: {reason}")
        _check_resume(RunFolder.open(run_dir), config, extend=extend)
    else:
        check_new(run_dir)
    if weights is not None:
        weights.check_settings(config)
    if target is not None:
        check_target(target.models, target.name)
    device = pick_device(config.device)
    # The paths in the run folder must not depend on the folder in which the command was typed.
    config = with_absolute_paths(config)
    for name in (config.dataset, config.test_dataset, config.validation_dataset, config.data_root):
        check_utf8(name or "")
    with joined(device) as dist, _one_interruption(dist):
        if dataset is None:
            dataset = _load(config, dist, download=download)
        if weights is not None:
            _check_weights(weights, dataset, console)
        threads = RunFolder.open(run_dir).record.threads if resume else config.threads
        threads = dist.broadcast(threads or default_threads(processes=dist.local_size))
        configure_process(threads=threads, keep_freed_memory=is_command and device.type == "cpu")
        fitted = fit(
            config,
            dataset,
            run_dir,
            resume=resume,
            extend=extend,
            weights=weights,
            command=command,
            console=console,
            dist=dist,
            catch_signals=catch_signals,
        )
    if not dist.is_first:
        return None
    exported = None if target is None else _export(fitted, dataset, target)
    return FitResult(evaluation=fitted.evaluation, exported=exported)


def _check_resume(run: RunFolder, config: Config, *, extend: bool) -> None:
    """Refuse other settings than the run's, and an end that it cannot have, before the data are read."""
    run.check_settings(config, may_extend=extend)
    progress = read_progress(run) if extend else TrainProgress()
    if extend and has_new_end(run.config, config, progress):
        check_new_end(run.config, config, progress, num_images=run.record.data.train_images)


def _check_weights(weights: StartWeights, dataset: Dataset, console: Console) -> None:
    """Refuse data of another shape, and test images that the weights were trained on all of."""
    weights.check_image(dataset.image, dataset=dataset.name)
    test = LabelledImages(dataset.test, None)
    left_out = unseen(test, {str(weights.origin): weights.trained_on}, name=dataset.name).left_out
    if any(left_out.values()):
        say(console, f"left out   of the test images {left_out_text(left_out)}")


def _load(config: Config, dist: DistContext, *, download: bool) -> Dataset:
    """Load the data set; the first process downloads it before the others read it."""
    if download:
        return dist.rank0_first(lambda: load_dataset(config, download=True))
    return load_dataset(config)


def _export(fitted: Fitted, dataset: Dataset, target: ExportTarget) -> Exported:
    train_state = _on_cpu(fitted.train_state, fitted.run)
    # The run folder may hold more figures than this evaluation, where the run had ended before.
    figures = fitted.run.read_evaluation() or fitted.evaluation.to_json_object()
    try:
        return export(
            fitted.run, train_state, dataset, fitted.progress, figures, models=target.models, name=target.name
        )
    except ExportFailed as error:
        words = ["export", str(fitted.run.path), "--models", str(target.models), "--name", target.name]
        raise ExportFailed(f"{error}; the run is kept: {shlex.join(['convvae-train', *words])}") from None


def _on_cpu(train_state: TrainState, run: RunFolder) -> TrainState:
    """Return the same weights on the CPU, where graphs are exported and compared."""
    if train_state.device.type == "cpu":
        return train_state
    return load_run(run.path, device="cpu")[1]


@contextmanager
def _one_interruption(dist: DistContext) -> Iterator[None]:
    """Let only the first process report that a signal stopped all of them."""
    try:
        yield
    except Interrupted as stopped:
        if dist.is_first:
            raise
        raise SystemExit(stopped.exit_code) from None
    except Stopped as stopped:
        if not dist.is_first:
            stopped.text = ""
        raise
