"""`fit` for callers in Python."""

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from rich.console import Console

from convvae_trainer.commands.packages import require_runtime
from convvae_trainer.errors import BadConfig
from convvae_trainer.python.data import DatasetLike, as_settings, named_or_given
from convvae_trainer.python.process import called_from_python
from convvae_trainer.python.signature import DATA_SETTINGS, RUN_SETTINGS, with_settings
from convvae_trainer.settings.config import SETTINGS
from convvae_trainer.settings.layers import Layer
from convvae_trainer.settings.run_settings import run_settings
from convvae_trainer.settings.values import typed_value

if TYPE_CHECKING:
    from convvae_trainer.data.dataset import Dataset
    from convvae_trainer.data.sources import SourceImages
    from convvae_trainer.evaluation.metrics import Evaluation
    from convvae_trainer.exports.publish import Exported

__all__ = ["FittedRun", "fit", "run_folder", "screen"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedRun:
    """A run that has ended.

    Attributes:
        run_dir: Its folder, from which it can be evaluated, exported, extended and started from.
        evaluation: The figures on its test images.
        exported: The published version, if a target was given, else None.
    """

    run_dir: Path
    evaluation: "Evaluation"
    exported: "Exported | None"

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl`: for early steps and for each epoch, the ELBO and its terms."""
        from convvae_trainer.runs.folder import RunFolder

        return RunFolder.open(self.run_dir).read_metrics()

    def __repr__(self) -> str:
        bound = self.evaluation.bound
        figure = f"distortion {bound.distortion:.2f}" if bound.elbo is None else f"test ELBO {bound.elbo:.2f}"
        version = "" if self.exported is None else f", exported as {str(self.exported.folder)!r}"
        return f"FittedRun({str(self.run_dir)!r}, {figure} nats per image{version})"


@with_settings(*RUN_SETTINGS)
def fit(
    dataset: DatasetLike | None = None,
    *,
    run_dir: str | os.PathLike[str],
    labels: NDArray[Any] | None = None,
    preset: str | None = None,
    config: str | os.PathLike[str] | None = None,
    resume: bool = False,
    start_from: "str | os.PathLike[str] | FittedRun | None" = None,
    models: str | os.PathLike[str] | None = None,
    name: str | None = None,
    download: bool = False,
    progress: bool = True,
    catch_signals: bool = False,
    **settings: Any,
) -> FittedRun:
    """Train a model and evaluate it, as `convvae-train fit` does. With `models` and `name`, also export it.

        run = fit("digits", run_dir="runs/digits", epochs=5, latent_dim=16)
        run.evaluation.bound.elbo

    The call runs in this process, alone: torchrun is for the command. Settings of torch, such as its number
    of threads, are restored at the end.

    Args:
        dataset: A name, a path or an array, as in `load_dataset`, or what that returned. None: that of the
            preset, of `config`, or of the run to resume.
        run_dir: A new or empty folder for settings, metrics and checkpoints.
        labels: For an array, the classes of its images: integers of shape (N,).
        preset: Start from the settings of a preset. `config` and `settings` override it.
        config: Read settings from this TOML file, or from the config.json of a run.
        resume: Continue the run in `run_dir`, with `epochs` or `minutes` to this later end.
        start_from: Start from the weights of this run, or of the published model ROOT/MODEL[@VERSION].
        models: Export the model to this model repository at the end.
        name: Export the model by this name.
        download: Whether to download a torchvision set that is absent.
        progress: Whether to print lines on the progress: in a notebook one every ten seconds.
        catch_signals: Whether SIGINT (Ctrl-C, a notebook's stop button), SIGTERM and SIGHUP save a
            checkpoint and raise `Interrupted` while training runs. Only the main thread can catch them.
            Otherwise no handler is installed, and `resume` continues at the last checkpoint, about 20 s old.
        **settings: Every setting of `convvae-train fit` by its name, such as `latent_dim=16`.

    Raises:
        BadConfig: A setting is unknown or not allowed, or settings contradict each other.
        BadData: The data set is missing or damaged, or its images have an unusable shape.
        BadRun: The run folder cannot be used, or its run cannot be resumed in this way.
        TrainingFailed: Too many steps in a row were not finite.
        ExportFailed: The graphs do not compute what they should. The run is kept.
        Interrupted: A signal was caught; a checkpoint is saved.
        BundleError: The published model to start from is damaged.
        MissingExtra: A package is not installed.
    """
    if (models is None) != (name is None):
        raise BadConfig("models and name go together: give both to export the model")
    if models is not None:
        require_runtime()
    if start_from is not None and resume:
        raise BadConfig("start_from starts a new run, and resume continues one: give one of them")
    if catch_signals and threading.current_thread() is not threading.main_thread():
        raise BadConfig("catch_signals works in the main thread only: leave it out in another one")
    given = {key: value for key, value in as_settings(settings).items() if value is not None}
    with called_from_python():
        from convvae_trainer.commands.fit import ExportTarget, run_fit
        from convvae_trainer.commands.start_weights import read_start_weights
        from convvae_trainer.data.dataset import load_dataset
        from convvae_trainer.data.sources import SourceImages
        from convvae_trainer.runs.folder import RunFolder

        folder = Path(run_dir)
        weights, below = None, None
        if start_from is not None:
            weights = read_start_weights(os.fspath(run_folder(start_from)))
            below = weights.defaults
        if resume:
            below = RunFolder.open(folder).settings
        named, images = named_or_given(dataset, labels)
        values = {**given, **_settings_of(named, images, given)}
        file = None if config is None else Path(config)
        run_config = run_settings(Layer(values), preset=preset, file=file, below=below)
        if isinstance(images, SourceImages):
            images = load_dataset(run_config, source=images)
        result = run_fit(
            run_config,
            folder,
            resume=resume,
            extend="epochs" in given or "minutes" in given,
            weights=weights,
            dataset=images,
            download=download,
            target=None if models is None or name is None else ExportTarget(Path(models), name),
            command="convvae_trainer.fit from Python",
            console=screen(progress),
            is_command=False,
            catch_signals=catch_signals,
        )
    assert result is not None
    return FittedRun(run_dir=folder, evaluation=result.evaluation, exported=result.exported)


def _settings_of(
    name: str | None, images: "Dataset | SourceImages | None", given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings that name a data set, and those that it was loaded with.

    Raises:
        BadConfig: It is loaded already, and settings say to load it in another way.
    """
    from convvae_trainer.data.dataset import Dataset
    from convvae_trainer.data.sources import IN_MEMORY

    if isinstance(images, Dataset):
        own = images.settings
        for setting in (name for name in DATA_SETTINGS if name in given):
            if setting not in own or typed_value(SETTINGS[setting], given[setting]) != own[setting]:
                raise BadConfig(f"{setting}: the data set is loaded already: give this to load_dataset")
        return {**images.settings, "dataset": images.name}
    return {"dataset": name if images is None else IN_MEMORY}


def run_folder(run: "str | os.PathLike[str] | FittedRun") -> Path:
    """Return the folder of a run that is given by its folder or as the result of `fit`."""
    return run.run_dir if isinstance(run, FittedRun) else Path(run)


def screen(progress: bool) -> Console:
    """Return where a call prints its progress: plain lines in a notebook, a bar on a terminal, or nothing."""
    # A notebook is no terminal, and a bar of rich would need another package there.
    return Console(file=sys.stdout, force_jupyter=False, quiet=not progress)
