"""What the commands do once their flags are parsed; torch is loaded here."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from convvae_trainer.compute.device import enough_memory, pick_device
from convvae_trainer.compute.distributed import DistContext, joined
from convvae_trainer.compute.process import configure_process, default_threads
from convvae_trainer.console import say
from convvae_trainer.data.dataset import Dataset, load_dataset, load_other, with_absolute_paths
from convvae_trainer.data.selection import lacking
from convvae_trainer.errors import BadConfig, BadData, BadRun, Interrupted
from convvae_trainer.evaluation.metrics import OPTIONAL_METRICS, Evaluation, evaluate
from convvae_trainer.evaluation.optional_metrics import (
    DEFAULT_OPTIONS,
    EvalOptions,
    add_log_likelihood,
    add_of_labels,
)
from convvae_trainer.export.publish import Exported, check_target, export
from convvae_trainer.runs.checkpoint import replace_file
from convvae_trainer.runs.fit import fit, load_run
from convvae_trainer.runs.folder import RunFolder, can_be_written, check_new, read_evaluation
from convvae_trainer.runs.loop import finish
from convvae_trainer.runs.progress import TrainProgress, fraction_done, is_finished, trained_images
from convvae_trainer.settings.config import Config, config_from, to_json_object
from convvae_trainer.settings.layers import FLAGS, Layer
from convvae_trainer.step.train_state import TrainState

__all__ = ["Done", "run_evaluate", "run_export", "run_fit", "saved_settings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What `fit` came to."""

    evaluation: Evaluation
    exported: Exported | None


def saved_settings(run_dir: Path) -> dict[str, Any]:
    """Return the settings of the run in `run_dir`, the base of a resumed one."""
    return to_json_object(RunFolder.open(run_dir).config)


def run_fit(
    config: Config,
    run_dir: Path,
    *,
    resume: bool,
    download: bool,
    target: tuple[Path, str] | None,
    command: str,
    console: Console,
) -> Done | None:
    """Train, evaluate and, with a `target` (models, name), export; what can be refused is refused first.

    Of several processes that torchrun started the first exports and returns what it came to, the others None.
    """
    if not resume:
        check_new(run_dir)
    else:
        if not can_be_written(run_dir):
            raise BadRun(f"run folder {run_dir} cannot be written")
        RunFolder.open(run_dir).check_settings(config)
    if target is not None:
        check_target(*target)
    device = pick_device(config.device)
    # What is typed depends on the folder that it is typed in; what is kept must not.
    config = with_absolute_paths(config)
    with joined(device) as dist, _first_says(dist):
        if download:
            dataset = dist.rank0_first(lambda: load_dataset(config, download=True))
        else:
            dataset = load_dataset(config)
        threads = RunFolder.open(run_dir).record["threads"] if resume else config.threads
        threads = dist.broadcast(threads or default_threads(processes=dist.local_size))
        configure_process(threads=threads, keep_freed_memory=device.type == "cpu")
        fitted = fit(config, dataset, run_dir, resume=resume, command=command, console=console, dist=dist)
    if not dist.is_first:
        return None
    exported = None
    if target is not None:
        train_state = _on_cpu(fitted.train_state, fitted.run)
        # Those that the run folder keeps: a run that had ended before may have further ones.
        figures = read_evaluation(fitted.run) or fitted.evaluation.to_json_object()
        exported = export(
            fitted.run, train_state, dataset, fitted.progress, figures, models=target[0], name=target[1]
        )
    return Done(evaluation=fitted.evaluation, exported=exported)


@contextmanager
def _first_says(dist: DistContext) -> Iterator[None]:
    """Leave it to the first process to say that all of them were stopped."""
    try:
        yield
    except Interrupted as stopped:
        if dist.is_first:
            raise
        raise SystemExit(stopped.exit_code) from None


def run_export(
    run_dir: Path,
    *,
    models: Path,
    name: str,
    dataset: str | None,
    data_root: str | None,
    download: bool,
    unfinished: bool = False,
) -> Exported:
    """Export the run's checkpoint; the run's data are needed for the parity check and the pictures.

    Args:
        run_dir: The run's folder.
        models: The model repository.
        name: The model.
        dataset: Where the run's data lie now; None: where they were.
        data_root: Where torchvision's sets lie now.
        download: Fetch a torchvision set that is absent.
        unfinished: Export a run that has not ended too; the version says so.

    Raises:
        BadRun: The run has not ended, or its encoder is not trained yet.
    """
    check_target(models, name)
    configure_process()
    run, train_state, progress = load_run(run_dir)
    ended = _check_ended(run, progress, unfinished=unfinished, console=Console(quiet=True))
    config = _changed(run, {"data_root": data_root, "dataset": dataset})
    data = load_dataset(config, download=download)
    run.check_same(config, data)
    if not ended:
        finish(train_state, data.train)
    figures = read_evaluation(run) if ended else None
    if figures is None:
        evaluation = evaluate(
            train_state,
            data.test,
            dataset=data.name,
            split=data.split,
            binarize=run.config.binarize,
            seed=run.config.seed,
        )
        figures = evaluation.to_json_object()
    return export(run, train_state, data, progress, figures, models=models, name=name)


def _check_ended(run: RunFolder, progress: TrainProgress, *, unfinished: bool, console: Console) -> bool:
    """Return whether the run has ended; say it of one that has not, or unless `unfinished` refuse it.

    One that trains no encoder yet is refused in either case, before any data are read.
    """
    count = trained_images(run.config, run.record["data"]["train_images"])
    if is_finished(run.config, progress, count):
        return True
    done = fraction_done(run.config, progress, count)
    resume = shlex.join(["convvae-train", "fit", "--resume", "--run-dir", str(run.path)])
    if run.config.objective == "vae-disl" and done < run.config.gan_share:
        raise BadRun(
            f"{100 * done:.0f} % of the run is done, and it still trains its GAN: there is no encoder"
            f" before {100 * run.config.gan_share:.0f} %: {resume}"
        )
    words = f"the run has not ended ({100 * done:.0f} % of its training is done)"
    if not unfinished:
        raise BadRun(f"{words}: {resume}, or export it as it is with --unfinished")
    say(console, words)
    return False


def run_evaluate(
    run_dir: Path,
    *,
    dataset: str | None,
    data_root: str | None,
    download: bool,
    binarize: str | None,
    seed: int | None,
    device: str | None,
    options: EvalOptions = DEFAULT_OPTIONS,
    out: Path | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Evaluate the run's checkpoint on its own test images, or on other data: their test images, or all.

    What is `options` for of the run's own test images is kept in its folder, if the run has ended; `out` is a
    file for all figures, and `console` shows progress.
    """
    if out is not None and (out.is_dir() or not can_be_written(out.absolute().parent)):
        raise BadConfig(f"--out: {out} cannot be written")
    console = console or Console(quiet=True)
    configure_process()
    with enough_memory():
        run, train_state, progress = load_run(run_dir, device=device)
    has_ended = _check_ended(run, progress, unfinished=True, console=console)
    options.check(run.config)
    changes: dict[str, Any] = {"binarize": binarize, "data_root": data_root, "dataset": dataset, "seed": seed}
    config = _changed(run, changes)
    data: Dataset | None
    if dataset is None:
        data = load_dataset(config, download=download)
        # With changed data the held-out images might be some that the run was trained on.
        run.check_same(run.config, data)
        (images, labels), split = (data.test, data.test_labels), data.split
    else:
        recorded = run.record["data"]
        (images, labels), split, data = load_other(
            config, own=recorded["sha256"], channels=recorded["image"][2], download=download
        )
    options.check_dataset(data)
    if data is not None and (options.embedding or options.frechet):
        run.check_same_labels(data)
    expected = tuple(run.record["data"]["image"])
    if images.shape[1:] != expected:
        raise BadData(
            f"images of {config.dataset} are {'x'.join(map(str, images.shape[1:]))}, the run's"
            f" {'x'.join(map(str, expected))}: give data of the same size and channels"
        )
    options.check_images(len(images))
    if options.limit_images is not None and (words := lacking(labels, options.limit_images)):
        say(console, f"the first {options.limit_images} test images are {words}: log p(x) is of these alone")
    with enough_memory():
        if not has_ended:
            if data is None:
                train_state.ema.restore_best()
            else:
                finish(train_state, data.train)
        evaluation = evaluate(
            train_state,
            images,
            dataset=config.dataset,
            split=split,
            binarize=config.binarize,
            seed=config.seed,
        )
        if data is not None:
            evaluation = add_of_labels(evaluation, options, train_state, data, console=console)
        evaluation = add_log_likelihood(evaluation, options, train_state, images, console=console)
    values = evaluation.to_json_object()
    if data is not None and config.binarize == run.config.binarize:
        _keep(run, values, console, has_ended=has_ended)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
    return evaluation


def _changed(run: RunFolder, flags: dict[str, Any]) -> Config:
    """Return the run's settings with what flags say of this command."""
    return config_from(Layer(to_json_object(run.config), "the run", is_fixed=True), Layer(flags, FLAGS))


def _keep(run: RunFolder, values: dict[str, Any], console: Console, *, has_ended: bool) -> None:
    """Add what the run folder has not yet, or what was asked for anew and rests on no less, to its figures.

    A run that has not ended has none: its checkpoint, and so its figures, may change.
    """
    asked_for = {name: values[name] for name in OPTIONAL_METRICS if values[name] is not None}
    if not has_ended:
        if asked_for:
            say(console, "not kept in the run folder: the run has not ended")
        return
    # Of a run that was killed while it evaluated there are none yet.
    kept = read_evaluation(run) or {}
    for name in tuple(asked_for):
        before = kept.get(name)
        if isinstance(before, dict) and _support(name, asked_for[name]) < _support(name, before):
            del asked_for[name]
            rests = ", ".join(f"{before[key]} {key.replace('_', ' ')}" for key in _SUPPORT[name])
            text = f"{name.replace('_', ' ')} not kept in the run folder, which has that of {rests}"
            say(console, text)
    merged = {**values, **kept, **asked_for}
    if merged == kept:
        return
    try:
        run.write_evaluation(merged)
    except OSError as error:
        say(console, f"not kept in the run folder: {error.strerror}")


# What a figure rests on, the most telling first: one that rests on less replaces none.
_SUPPORT = {
    "log_likelihood": ("images", "samples"),
    "embedding": ("test_images", "train_images"),
    "frechet": ("images",),
}


def _support(name: str, figure: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(figure.get(key, 0) for key in _SUPPORT[name])


def _on_cpu(train_state: TrainState, run: RunFolder) -> TrainState:
    """Return the same weights on the CPU, where graphs are exported and compared."""
    if train_state.device.type == "cpu":
        return train_state
    return load_run(run.path, device="cpu")[1]
