"""What the commands do once their flags are parsed; torch is loaded here."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from convvae_trainer.config import Config, config_from, to_json_object
from convvae_trainer.data import load_dataset
from convvae_trainer.device import pick_device
from convvae_trainer.errors import BadData
from convvae_trainer.evaluate import Evaluation, evaluate
from convvae_trainer.export import Exported, check_target, export, read_evaluation
from convvae_trainer.fit import fit, load_run
from convvae_trainer.learner import Learner
from convvae_trainer.run_folder import RunFolder, check_new

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
) -> Done:
    """Train, evaluate and, with a `target` (models, name), export; what can be refused is refused first."""
    if not resume:
        check_new(run_dir)
    if target is not None:
        check_target(*target)
    pick_device(config.device)
    dataset = load_dataset(config, download=download)
    fitted = fit(config, dataset, run_dir, resume=resume, command=command, console=console)
    exported = None
    if target is not None:
        learner = _on_cpu(fitted.learner, fitted.run)
        figures = fitted.evaluation.to_json_object()
        exported = export(
            fitted.run, learner, dataset, fitted.position, figures, models=target[0], name=target[1]
        )
    return Done(evaluation=fitted.evaluation, exported=exported)


def run_export(run_dir: Path, *, models: Path, name: str, data_root: str | None, download: bool) -> Exported:
    """Export the run's checkpoint; the run's data are needed for the parity check and the pictures."""
    check_target(models, name)
    run, learner, position = load_run(run_dir)
    dataset = load_dataset(_with_root(run.config, data_root), download=download)
    run.check_same(run.config, dataset)
    figures = read_evaluation(run)
    if figures is None:
        evaluation = evaluate(
            learner, dataset.test, dataset=dataset.name, binarize=run.config.binarize, seed=run.config.seed
        )
        figures = evaluation.to_json_object()
    return export(run, learner, dataset, position, figures, models=models, name=name)


def run_evaluate(
    run_dir: Path,
    *,
    dataset: str | None,
    data_root: str | None,
    download: bool,
    binarize: str | None,
    seed: int,
    device: str | None,
) -> Evaluation:
    """Evaluate the run's checkpoint on its own test images, or on those of another data set."""
    run, learner, _ = load_run(run_dir, device=device or run_device(run_dir))
    changes: dict[str, Any] = {"binarize": binarize, "data_root": data_root, "dataset": dataset, "seed": seed}
    config = config_from(to_json_object(run.config), changes)
    if dataset is not None and dataset != run.config.dataset:
        config = dataclasses.replace(config, train_images=None)
    data = load_dataset(config, download=download)
    expected = tuple(run.record["data"]["image"])
    if data.image.as_tuple != expected:
        raise BadData(
            f"images of {data.name} are {data.image}, the run's {'x'.join(map(str, expected))}:"
            " give data of the same size and channels"
        )
    return evaluate(learner, data.test, dataset=data.name, binarize=config.binarize, seed=seed)


def run_device(run_dir: Path) -> str:
    """Return the device setting of the run."""
    return RunFolder.open(run_dir).config.device


def _with_root(config: Config, data_root: str | None) -> Config:
    return config if data_root is None else dataclasses.replace(config, data_root=data_root)


def _on_cpu(learner: Learner, run: RunFolder) -> Learner:
    """Return the same weights on the CPU, where graphs are exported and compared."""
    if learner.device.type == "cpu":
        return learner
    return load_run(run.path, device="cpu")[1]
