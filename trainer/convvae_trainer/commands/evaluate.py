"""Evaluate a run as the command `evaluate` does, on its own test images or on other data."""

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from convvae_trainer.commands.evaluation_data import OtherData, OwnData, check_shape, load_evaluation_data
from convvae_trainer.commands.kept_figures import keep_figures
from convvae_trainer.commands.stored_run import DataLocation, StoredRun
from convvae_trainer.compute.device import enough_memory
from convvae_trainer.compute.process import configure_process
from convvae_trainer.console import say
from convvae_trainer.data.selection import lacking
from convvae_trainer.errors import BadConfig
from convvae_trainer.evaluation.advice import advised
from convvae_trainer.evaluation.metrics import Evaluation, evaluate
from convvae_trainer.evaluation.optional_metrics import add_optional_metrics
from convvae_trainer.evaluation.options import EvalOptions
from convvae_trainer.runs.checkpoint import replace_file
from convvae_trainer.runs.folder import write_obstacle
from convvae_trainer.runs.ownership import made_folder
from convvae_trainer.runs.training import finish
from convvae_trainer.settings.config import Config

__all__ = ["run_evaluate"]

_AS_RECORDED = DataLocation()
_NO_SCREEN = Console(quiet=True)


def run_evaluate(
    run_dir: Path,
    *,
    data: DataLocation = _AS_RECORDED,
    binarize: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    options: EvalOptions = EvalOptions(),
    out: Path | None = None,
    console: Console = _NO_SCREEN,
) -> Evaluation:
    """Evaluate the checkpoint of a run on its own test images, or on the images of another data set.

    Another data set is evaluated on its test images, or on all images where it has no test split. Images that
    the run was trained on are left out. The run folder keeps the figures on the run's own test images, if the
    run has ended.

    Args:
        run_dir: The run folder.
        data: The data set. Its default is the run's own.
        binarize: `none` or `dynamic`. None: as the run's settings say.
        seed: Seed of all draws. None: the run's.
        device: The device to compute on. None: as the run's settings say.
        options: The optional metrics.
        out: A JSON file for all figures.
        console: The screen for progress.

    Raises:
        BadRun: The run cannot be used, or its data have changed.
        BadData: The data set is missing, damaged or of another shape, or the run was trained on all of it.
        BadConfig: An option is not allowed or cannot be computed from the data.
    """
    if out is not None:
        _check_out(out)
    configure_process()
    with enough_memory():
        stored = StoredRun.load(run_dir, device=device)
    if not stored.has_ended:
        say(console, stored.unfinished_text)
    options.check(stored.folder.config)
    config = stored.config_with(
        dataset=data.name,
        test_dataset=data.test_dataset,
        validation_dataset=data.validation_dataset,
        data_root=data.data_root,
        max_pixels=data.max_pixels,
        on_error=data.on_error,
        binarize=binarize,
        seed=seed,
    )
    found = load_evaluation_data(stored, config, data)
    _check_data(stored, config, found, options, console)
    with enough_memory():
        evaluation = _evaluate(stored, config, found, options, console)
    figures = evaluation.to_json_object()
    if isinstance(found, OwnData) and config.binarize == stored.folder.config.binarize:
        keep_figures(stored, figures, console=console)
    if out is not None:
        with made_folder(out.absolute().parent):
            replace_file(out, (json.dumps(figures, indent=2, allow_nan=False) + "\n").encode())
    return evaluation


def _check_out(out: Path) -> None:
    if reason := "it is a folder" if out.is_dir() else write_obstacle(out.absolute().parent):
        raise BadConfig(f"--out: {out} cannot be written: {reason}")


def _check_data(
    stored: StoredRun, config: Config, data: OwnData | OtherData, options: EvalOptions, console: Console
) -> None:
    """Refuse data from which the run or an optional metric cannot be evaluated. Report missing classes."""
    options.check_dataset(data.dataset if isinstance(data, OwnData) else None)
    if isinstance(data, OwnData) and options.needs_labels:
        stored.folder.check_same_labels(data.dataset)
    check_shape(stored, data, dataset=config.dataset)
    options.check_images(len(data.images))
    if options.limit_images is not None and (words := lacking(data.labels, options.limit_images)):
        say(console, f"the first {options.limit_images} test images are {words}: log p(x) is of these alone")


def _evaluate(
    stored: StoredRun,
    config: Config,
    data: OwnData | OtherData,
    options: EvalOptions,
    console: Console,
) -> Evaluation:
    train_state = stored.train_state
    if not stored.has_ended:
        if isinstance(data, OwnData):
            finish(train_state, data.dataset.train)
        else:
            train_state.ema.restore_best()
    evaluation = evaluate(
        train_state,
        data.images,
        dataset=config.dataset,
        split=data.split,
        binarize=config.binarize,
        seed=config.seed,
    )
    evaluation = replace(evaluation, left_out=data.left_out)
    if isinstance(data, OwnData):
        began_trained = stored.folder.record.weights_from is not None
        metrics = stored.folder.read_metrics()
        evaluation = advised(evaluation, train_state, metrics, began_trained=began_trained)
    dataset = data.dataset if isinstance(data, OwnData) else None
    return add_optional_metrics(evaluation, options, train_state, data.images, dataset, console=console)
