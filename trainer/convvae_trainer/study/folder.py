"""The folder of a study: its plan, its runs, the models that they became, and the report.

study.json           the plan, written before the first run: all settings of each run, data set, threads
runs/NAME            the folder of a run, with `log.txt`, the screen of its training
models/NAME/1        the exported run: a run whose model is published is finished
report.html          the report, with report.json and report_files
.lock                the process that trains, while it runs, and its child processes
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from convvae_service.bundle import METRICS_FILE, Manifest, list_versions, read_manifest
from convvae_trainer.errors import BadConfig, BadRun
from convvae_trainer.runs.checkpoint import replace_file
from convvae_trainer.runs.folder import LOG_FILE, MAY_DIFFER_ON_RESUME, write_obstacle
from convvae_trainer.runs.lock import LOCK_FILE, RunLock, has_orphans, locked
from convvae_trainer.runs.ownership import made_folder
from convvae_trainer.settings.assembly import config_from, to_json_object
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.layers import Layer
from convvae_trainer.study.plan import StudyPlan

__all__ = ["StudyFolder", "StudyRecord", "check_folder"]

FORMAT = "convvae-study-1"
PLAN_FILE = "study.json"
# How long to wait for the child processes of a study that was killed: they save a checkpoint and end.
ORPHANS_WAIT_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRecord:
    """The contents of `study.json`: what decides on the results of a study.

    `runs` has the settings of each run, in the order of training. `data_sha256` is the fingerprint of all
    images, and `threads` the CPU threads of each run. `command` is not compared.
    """

    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    vary: Mapping[str, tuple[Any, ...]]
    runs: Mapping[str, Config]
    data_sha256: str
    threads: int
    command: str

    @classmethod
    def of(cls, plan: StudyPlan, *, data_sha256: str, threads: int, command: str) -> Self:
        """Return the record of a plan."""
        return cls(
            objectives=plan.objectives,
            seeds=plan.seeds,
            vary=plan.vary,
            runs={run.name: run.config for run in plan.runs},
            data_sha256=data_sha256,
            threads=threads,
            command=command,
        )

    def to_json_object(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {
            "format": FORMAT,
            "command": self.command,
            "objectives": list(self.objectives),
            "seeds": list(self.seeds),
            "vary": {name: list(values) for name, values in self.vary.items()},
            "threads": self.threads,
            "data_sha256": self.data_sha256,
            "runs": {name: to_json_object(config) for name, config in self.runs.items()},
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the record of a file that a study wrote.

        Raises:
            BadRun: The file cannot be read, or is not a study's.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise BadRun(f"{path} is not of the format {FORMAT}: another version of convvae wrote it")
            return cls(
                objectives=tuple(values["objectives"]),
                seeds=tuple(values["seeds"]),
                vary={name: tuple(given) for name, given in values["vary"].items()},
                runs={name: config_from(Layer(given, str(path))) for name, given in values["runs"].items()},
                data_sha256=str(values["data_sha256"]),
                threads=int(values["threads"]),
                command=str(values["command"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadRun(f"{path} cannot be read: {error}: restore it, or start in another folder") from None

    def check_same(self, other: Self, *, folder: Path) -> None:
        """Raise `BadRun` unless `other` is the same study. The message names the first difference."""
        if difference := self._difference(other):
            raise BadRun(
                f"{folder} holds a study with {difference}: give the options of that study to go on with it,"
                " or another --out"
            )

    def _difference(self, other: Self) -> str:
        for name, own, given in (
            ("objectives", self.objectives, other.objectives),
            ("seeds", self.seeds, other.seeds),
            ("varied settings", _assignments(self.vary), _assignments(other.vary)),
            ("runs", tuple(self.runs), tuple(other.runs)),
        ):
            if own != given:
                return f"{name} {_list(own)}, not {_list(given)}"
        for name, config in self.runs.items():
            own_values, values = to_json_object(config), to_json_object(other.runs[name])
            for key, value in own_values.items():
                if key not in MAY_DIFFER_ON_RESUME and values[key] != value:
                    return f"{key}={value} for {name}, not {values[key]}"
        return "" if self.data_sha256 == other.data_sha256 else "other images in its data set"


class StudyFolder:
    """The files of one study.

    Args:
        path: The folder. It may be absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def models(self) -> Path:
        """The model repository."""
        return self.path / "models"

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.path / "report.html"

    @property
    def runs(self) -> Path:
        """The folder of the runs' folders."""
        return self.path / "runs"

    def run_dir(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.runs / name

    def metrics(self, name: str) -> Path:
        """Return the path of a run's metrics."""
        return self.run_dir(name) / METRICS_FILE

    def log(self, name: str) -> Path:
        """Return the path of a run's log."""
        return self.run_dir(name) / LOG_FILE

    def read(self) -> StudyRecord | None:
        """Return the record of the study, or None if the folder holds none yet.

        Raises:
            BadRun: The record cannot be read.
        """
        path = self.path / PLAN_FILE
        return StudyRecord.read(path) if path.exists() else None

    def write(self, record: StudyRecord) -> None:
        """Write the record; a process that is killed leaves the old one or the new one."""
        values = json.dumps(record.to_json_object(), indent=2, allow_nan=False)
        replace_file(self.path / PLAN_FILE, (values + "\n").encode())

    def manifest(self, name: str) -> Manifest | None:
        """Return the manifest of a run's newest model, or None if the run is not finished.

        Raises:
            BundleError: The manifest is damaged.
        """
        versions = list_versions(self.models, name)
        return read_manifest(self.models / name / str(versions[-1])) if versions else None

    @contextmanager
    def held(self) -> Iterator[RunLock]:
        """Make the folder, and hold its lock in the block.

        The child processes of a study that was killed hold its lock too. They are waited for.

        Raises:
            BadRun: Another study is at work in the folder.
        """
        with made_folder(self.path):
            wait_s = ORPHANS_WAIT_S if has_orphans(self.path) else 0.0
            with locked(self.path, wait_s=wait_s) as lock:
                yield lock


def check_folder(path: Path) -> None:
    """Raise `BadConfig` unless a study can be made in `path`, or goes on there. This makes nothing."""
    if path.exists() and not path.is_dir():
        raise BadConfig(f"--out: {path} is a file: give a folder")
    if reason := write_obstacle(path):
        raise BadConfig(f"--out: {path} cannot be written: {reason}")
    is_new = path.is_dir() and not (path / PLAN_FILE).exists()
    if is_new and any(entry.name != LOCK_FILE for entry in path.iterdir()):
        raise BadConfig(f"--out: {path} is not empty and holds no study: give a new or an empty folder")


def _assignments(vary: Mapping[str, tuple[Any, ...]]) -> tuple[str, ...]:
    return tuple(f"{name}={','.join(map(str, values))}" for name, values in vary.items())


def _list(values: tuple[Any, ...]) -> str:
    return ", ".join(map(str, values)) or "(none)"
