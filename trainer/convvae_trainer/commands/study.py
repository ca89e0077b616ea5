"""Train a study as the command `study` does: plan, train what is not finished, and write the report."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from convvae_service.bundle import Manifest
from convvae_service.engine.cpus import available_cpus
from convvae_trainer.commands.compare import CompareOptions, run_compare
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compute.device import pick_device
from convvae_trainer.compute.process import default_threads
from convvae_trainer.console import say
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.data.sources import with_absolute_paths
from convvae_trainer.runs.likelihood_choice import chosen_likelihood
from convvae_trainer.runs.lock import RunLock, check_unlocked, has_orphans
from convvae_trainer.runs.signals import Stopped
from convvae_trainer.runs.summary import data_lines
from convvae_trainer.settings.layers import Layer
from convvae_trainer.streams import check_utf8
from convvae_trainer.study.execution import train_runs
from convvae_trainer.study.folder import StudyFolder, StudyRecord, check_folder
from convvae_trainer.study.hparams import HParamsTable
from convvae_trainer.study.plan import StudyPlan, make_plan
from convvae_trainer.study.result import StudyResult

__all__ = ["StudyOptions", "run_study"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyOptions:
    """The options of `convvae-train study`; its help describes them. `layers` has the settings."""

    layers: Sequence[Layer]
    out: Path
    objectives: str | None = None
    seeds: str | None = None
    vary: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    jobs: int | None = None
    download: bool = False
    report: bool = True


def run_study(options: StudyOptions, *, command: str, console: Console) -> StudyResult:
    """Train, export and compare the runs of a study. Runs that are finished already are kept.

    All that can be refused is refused before training.

    Args:
        options: The options of the command.
        command: The command line, which the runs record.
        console: The screen for progress.

    Raises:
        BadConfig: A setting is not allowed, the runs cannot be matched, or the folder cannot be used.
        BadData: The data set is missing or damaged.
        BadRun: The folder holds another study, or a process trains in it.
        Stopped: A signal stopped the study; the same command goes on with it.
    """
    plan = make_plan(options.layers, objectives=options.objectives, seeds=options.seeds, vary=options.vary)
    for line in _description(plan):
        say(console, line)
    folder = StudyFolder(options.out)
    _check_free(folder)
    plan = _located(plan)
    jobs, record = _record(options, plan, command=command)
    if (saved := folder.read()) is not None:
        # The images are compared when they are read.
        saved.check_same(dataclasses.replace(record, data_sha256=saved.data_sha256), folder=options.out)
    dataset = _load(plan, download=options.download)
    for line in [*data_lines(dataset), *_likelihood_lines(plan, dataset)]:
        say(console, line)
    record = dataclasses.replace(record, data_sha256=dataset.fingerprint())
    # The child processes read the images again: no process needs memory for them twice.
    del dataset
    if has_orphans(folder.path):
        say(console, "waiting    for child processes of this study, which was killed: they save checkpoints")
    with folder.held() as lock:
        record = _written(folder, record)
        failed = _train(folder, plan, record, lock, jobs=jobs, console=console)
        manifests = _manifests(folder, plan)
        comparison = None
        if options.report and manifests:
            comparison = _report(folder, plan, manifests, command=command, console=console)
    return StudyResult(folder=folder, plan=plan, manifests=manifests, failed=failed, comparison=comparison)


def _description(plan: StudyPlan) -> list[str]:
    """Return lines on the number of runs, on what differs between them, and on what they share."""
    parts = [f"objectives {', '.join(plan.objectives)}"]
    parts += [f"{name} {', '.join(map(str, values))}" for name, values in plan.vary.items()]
    parts.append(f"seeds {', '.join(map(str, plan.seeds))}")
    epochs = ", ".join(dict.fromkeys(str(run.config.total_epochs) for run in plan.runs))
    count = "1 run" if len(plan.runs) == 1 else f"{len(plan.runs)} runs"
    return [
        f"study      {count} of {epochs} epochs",
        *(f"           {part}" for part in parts),
        *(f"shared     {reason}" for reason in plan.reasons),
    ]


def _likelihood_lines(plan: StudyPlan, dataset: Dataset) -> list[str]:
    """Return a line on each likelihood that the images decide, with the reason."""
    chosen = [chosen_likelihood(run.config, dataset.train) for run in plan.runs]
    lines = [f"likelihood {config.likelihood}, since {reason}" for config, reason in chosen if reason]
    return list(dict.fromkeys(lines))


def _check_free(folder: StudyFolder) -> None:
    """Check that the study can work in its folder. This makes nothing."""
    check_folder(folder.path)
    if not has_orphans(folder.path):
        check_unlocked(folder.path)


def _located(plan: StudyPlan) -> StudyPlan:
    """Return the plan with absolute paths, which mean the same in any folder."""
    runs = [dataclasses.replace(run, config=with_absolute_paths(run.config)) for run in plan.runs]
    config = runs[0].config
    for name in (config.dataset, config.test_dataset, config.validation_dataset, config.data_root):
        check_utf8(name or "")
    return dataclasses.replace(plan, runs=tuple(runs))


def _record(options: StudyOptions, plan: StudyPlan, *, command: str) -> tuple[int, StudyRecord]:
    """Return the number of runs at a time, and the record of the plan without its images."""
    config = plan.runs[0].config
    jobs = options.jobs
    if jobs is None:
        # A small network gains little from a second thread, and a GPU nothing from a second process.
        is_cpu = pick_device(config.device).type == "cpu"
        jobs = max(1, available_cpus() // (config.threads or 1)) if is_cpu else 1
    jobs = min(jobs, len(plan.runs))
    threads = config.threads or default_threads(processes=jobs)
    return jobs, StudyRecord.of(plan, data_sha256="", threads=threads, command=command)


def _load(plan: StudyPlan, *, download: bool) -> Dataset:
    """Load the images of the run with the most training images, so that too few are noticed."""
    configs = [run.config for run in plan.runs]
    return load_dataset(max(configs, key=lambda config: config.train_images or 0), download=download)


def _written(folder: StudyFolder, record: StudyRecord) -> StudyRecord:
    """Write the record, or check that it is that of the study in the folder; return it with its threads."""
    if (saved := folder.read()) is not None:
        saved.check_same(record, folder=folder.path)
        # Another number of threads would give other weights.
        record = dataclasses.replace(record, threads=saved.threads, command=saved.command)
    folder.write(record)
    return record


def _train(
    folder: StudyFolder,
    plan: StudyPlan,
    record: StudyRecord,
    lock: RunLock,
    *,
    jobs: int,
    console: Console,
) -> Mapping[str, str]:
    """Train the runs that are not finished; return why some failed, by name."""
    threads = f"{record.threads} CPU {'thread' if record.threads == 1 else 'threads'} each"
    say(console, f"jobs       {jobs} at a time on {pick_device(plan.runs[0].config.device)}, {threads}")
    manifests = _manifests(folder, plan)
    if manifests:
        say(console, f"kept       {len(manifests)} of {len(plan.runs)} runs, finished before")
    table = HParamsTable(folder, plan, console)
    table.write(manifests)
    execution = train_runs(
        folder,
        plan.runs,
        finished={name: _training_s(manifest) for name, manifest in manifests.items()},
        lock=lock,
        jobs=jobs,
        threads=record.threads,
        console=console,
        on_finished=table.add,
    )
    if execution.stopped_by is not None:
        stopped = Stopped(execution.stopped_by)
        done = f"{len(_manifests(folder, plan))} of {len(plan.runs)} runs are finished"
        stopped.text += f"; {done}, and the others go on with the same command"
        raise stopped
    return execution.failed


def _manifests(folder: StudyFolder, plan: StudyPlan) -> dict[str, Manifest]:
    """Return the manifest of each finished run's model, by the name of the run."""
    found = {run.name: folder.manifest(run.name) for run in plan.runs}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def _training_s(manifest: Manifest) -> float:
    """Return the seconds that the training of a model took."""
    seconds = manifest.training.metrics.get("training_seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _report(
    folder: StudyFolder,
    plan: StudyPlan,
    manifests: Mapping[str, Manifest],
    *,
    command: str,
    console: Console,
) -> Comparison:
    """Write the report on the models of all finished runs."""
    config = plan.runs[0].config
    options = CompareOptions(
        models=[str(folder.models / name) for name in manifests],
        dataset=config.dataset,
        test_dataset=config.test_dataset,
        out=folder.report,
        data_root=config.data_root,
        image_size=config.image_size,
        max_pixels=config.max_pixels,
        on_error=config.on_error,
    )
    return run_compare(options, command=command, say=lambda text: say(console, f"{text} …"))
