"""The training of one run of a study, from its start or its last checkpoint to its published model."""

import shutil
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from convvae_trainer.compute.device import pick_device
from convvae_trainer.compute.process import configure_process
from convvae_trainer.console import say
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import BadRun
from convvae_trainer.exports.publish import export
from convvae_trainer.runs.fit import fit
from convvae_trainer.runs.folder import LOG_FILE, holds_run
from convvae_trainer.runs.lock import LOCK_FILE
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.assembly import to_json_object
from convvae_trainer.settings.config import SETTINGS, Config
from convvae_trainer.settings.declaration import Panel
from convvae_trainer.study.folder import StudyFolder

__all__ = ["StudyTrainer"]

LOG_COLUMNS = 120
_DATA_SETTINGS = tuple(name for name, each in SETTINGS.items() if each.declaration.panel == Panel.DATA)


class StudyTrainer:
    """Trains and exports runs of a study in this process. Runs on the same images read them once.

    Args:
        path: The folder of the study, with its plan.

    Raises:
        BadRun: The folder holds no study.
    """

    def __init__(self, path: Path) -> None:
        self.folder = StudyFolder(path)
        record = self.folder.read()
        if record is None:
            raise BadRun(f"{path} holds no study")
        self._record = record
        self._data: tuple[dict[str, Any], Dataset] | None = None

    def train(self, name: str, log: TextIO) -> None:
        """Train a run to its end and publish its model; a model that is published is kept.

        Args:
            name: The name of the run.
            log: The text file for its progress.

        Raises:
            TrainerError: The run failed.
            Interrupted: A signal stopped the training; a checkpoint was saved.
        """
        if self.folder.manifest(name) is not None:
            return
        config = self._record.runs[name]
        dataset = self._dataset(config)
        device = pick_device(config.device)
        configure_process(threads=self._record.threads, keep_freed_memory=device.type == "cpu")
        console = Console(file=log, width=LOG_COLUMNS)
        run_dir = self.folder.run_dir(name)
        resume = holds_run(run_dir)
        if not resume:
            _clear(run_dir)
        fitted = fit(
            config,
            dataset,
            run_dir,
            resume=resume,
            command=self._record.command,
            console=console,
        )
        train_state = fitted.train_state if device.type == "cpu" else load_run(run_dir)[1]
        figures = fitted.run.read_evaluation() or fitted.evaluation.to_json_object()
        exported = export(
            fitted.run, train_state, dataset, fitted.progress, figures, models=self.folder.models, name=name
        )
        say(console, f"exported   {exported.folder}")

    def _dataset(self, config: Config) -> Dataset:
        """Return the data set of a run, from memory if the run before had the same."""
        values = to_json_object(config)
        key = {name: values[name] for name in _DATA_SETTINGS}
        if self._data is None or self._data[0] != key:
            # The one before is freed first.
            self._data = None
            self._data = key, load_dataset(config)
        return self._data[1]


def _clear(run_dir: Path) -> None:
    """Remove what a run left that was killed before its folder was complete; its log is kept."""
    for path in run_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOCK_FILE, LOG_FILE):
            path.unlink()
