"""The table of a study in TensorBoard: a row for each finished run, with its settings and its final figures.

`tensorboard --logdir DIR` shows it as the tab HParams.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from convvae_service.bundle import Manifest
from convvae_trainer.console import say
from convvae_trainer.errors import MissingExtra
from convvae_trainer.runs.event_file import EventFile
from convvae_trainer.study.folder import StudyFolder
from convvae_trainer.study.plan import PlannedRun, StudyPlan

__all__ = ["METRICS", "HParamsTable"]

# The figures of a row, as the manifest names them.
METRICS = (
    *("test_elbo_nats", "test_distortion_nats", "test_rate_nats", "test_bits_per_dim", "test_active_units"),
    *("test_mse", "test_psnr_db", "test_ssim", "test_sharpness", "test_sample_sharpness"),
)


class HParamsTable:
    """The table of a study. If it cannot be written, a line says so once and the study goes on.

    Args:
        folder: The folder of the study.
        plan: Its plan. Without the setting `tensorboard`, nothing is written.
        console: Shows why the table is not written, if that happens.
    """

    def __init__(self, folder: StudyFolder, plan: StudyPlan, console: Console) -> None:
        self._folder = folder
        self._plan = plan
        self._console = console
        self._is_written = plan.runs[0].config.tensorboard

    def write(self, manifests: Mapping[str, Manifest]) -> None:
        """Write the columns, and the rows of the runs that are finished, with their manifests by name."""
        self._attempt(self._write_columns)
        for run in self._plan.runs:
            if run.name in manifests:
                self.add(run)

    def add(self, run: PlannedRun) -> None:
        """Write the row of a run that is finished."""
        self._attempt(lambda: self._write_row(run))

    def _attempt(self, write: Callable[[], None]) -> None:
        if not self._is_written:
            return
        try:
            write()
        except ImportError:
            reason = str(MissingExtra("tensorboard", "trainer"))
        except OSError as error:
            reason = f"{error.filename or self._folder.path} cannot be written: {error.strerror}"
        else:
            return
        self._is_written = False
        say(self._console, f"no table for TensorBoard: {reason}; the study goes on")

    def _write_columns(self) -> None:
        from tensorboard.plugins.hparams import summary_v2

        plan = self._plan
        columns = {"objective": plan.objectives, "seed": plan.seeds, **plan.vary}
        summary = summary_v2.hparams_config_pb(
            hparams=[
                summary_v2.HParam(name, summary_v2.Discrete(list(values))) for name, values in columns.items()
            ],
            metrics=[summary_v2.Metric(_tag(name)) for name in METRICS],
        )
        _replace(self._folder.runs, [summary])

    def _write_row(self, run: PlannedRun) -> None:
        from tensorboard.plugins.hparams import summary_v2
        from torch.utils.tensorboard import summary

        torch_summary: Any = summary
        manifest = self._folder.manifest(run.name)
        assert manifest is not None
        settings = {"objective": run.config.objective, "seed": run.config.seed, **run.varied}
        figures = {name: manifest.training.metrics.get(name) for name in METRICS}
        # The plugin's own function for the end of a session needs TensorFlow.
        _, _, end = torch_summary.hparams({}, {})
        summaries = [
            summary_v2.hparams_pb(settings, trial_id=run.name),
            *(
                torch_summary.scalar(_tag(name), value)
                for name, value in figures.items()
                if isinstance(value, int | float) and math.isfinite(value)
            ),
            end,
        ]
        _replace(self._folder.run_dir(run.name), summaries)


def _replace(folder: Path, summaries: list[Any]) -> None:
    """Write summaries to an event file in the folder, in place of those of an earlier command."""
    folder.mkdir(parents=True, exist_ok=True)
    for older in folder.glob("events.out.tfevents.*"):
        older.unlink()
    EventFile(folder, purge_step=0).write(summaries, step=0)


def _tag(metric: str) -> str:
    return metric.replace("_", "/", 1)
