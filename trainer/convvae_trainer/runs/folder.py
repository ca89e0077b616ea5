"""The folder of a run: its settings, record, metrics, checkpoint and evaluation.

run.json                 the record: command, precision, threads, data set, segments (see `record`)
config.json              every setting, including the defaults
metrics.jsonl            one JSON object per line: early steps, then one per epoch
checkpoint.safetensors   the state to resume from and the weights to export
trained_on.bin           fingerprints of the training images (see `bundle.trained_on`), if the run keeps them
evaluation.json          figures on the test images, written at the end
reproduce.txt            how to repeat the run
tensorboard              figures and pictures for TensorBoard, if the run writes them
log.txt                  the lines on the screen, if a study trains the run
.lock                    the process that writes in the folder, while it runs (see `lock`)
"""

import errno
import json
import os
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from convvae_service.bundle import BundleError, decode_trained_on
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.trained_on import Fingerprints
from convvae_trainer.errors import BadRun
from convvae_trainer.evaluation.metrics import EVALUATION_KEYS
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.checkpoint import replace_file
from convvae_trainer.runs.lock import LOCK_FILE
from convvae_trainer.runs.record import RunRecord, RunSegment
from convvae_trainer.runs.reproduce import reproduce_text
from convvae_trainer.settings.assembly import config_from, to_json_object
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.layers import Layer

__all__ = ["LOG_FILE", "MAY_DIFFER_ON_RESUME", "RunFolder", "check_new", "holds_run", "write_obstacle"]

RECORD_FILE = "run.json"
CONFIG_FILE = "config.json"
LOG_FILE = "log.txt"
# A resumed run may find its data elsewhere and use another device. Everything else decides the results.
MAY_DIFFER_ON_RESUME = frozenset(
    {"dataset", "test_dataset", "validation_dataset", "data_root", "device", "cuda_graph"}
)
_END = frozenset({"epochs", "minutes"})
# The keys of evaluation.json whose values must be numbers.
_NUMBERS = ("elbo", "distortion", "rate", "active_units", "latent_dim", "images", "seed")
# An objective without a rate has none of these.
_NEED_A_RATE = frozenset({"elbo", "rate"})
# Not every likelihood has these.
_NUMBERS_OR_NULL = ("bits_per_dim", "sigma")


class RunFolder:
    """The files of one run. Use `create` or `open` to make one."""

    def __init__(self, path: Path, *, config: Config, record: RunRecord) -> None:
        self.path = path
        self.config = config
        self.record = record

    @property
    def settings(self) -> Layer:
        """The settings of the run, to be overridden by those of a command on it."""
        return Layer(to_json_object(self.config), "the run", is_fixed=True)

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint, which may not exist yet."""
        return self.path / "checkpoint.safetensors"

    @property
    def metrics(self) -> Path:
        """Path of the metrics."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Folder of the files for TensorBoard."""
        return self.path / "tensorboard"

    @classmethod
    def create(cls, path: Path, *, config: Config, record: RunRecord, trained_on: bytes = b"") -> Self:
        """Write settings and record to an empty folder, which this process has locked (see `ownership`).

        Args:
            path: The folder.
            config: The settings.
            record: The record.
            trained_on: The fingerprints, if the record has an entry for them.

        Raises:
            OSError: The folder cannot be written.
        """
        run = cls(path, config=config, record=record)
        replace_file(path / CONFIG_FILE, _json(to_json_object(config)))
        if (entry := record.data.trained_on) is not None:
            replace_file(path / entry.file, trained_on)
        run._write_record()
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of an existing run.

        Raises:
            BadRun: There is no run, or its settings or record are damaged.
        """
        if not path.exists():
            raise BadRun(f"run folder {path} does not exist")
        if not path.is_dir():
            raise BadRun(f"{path} is a file, not a run folder")
        if not holds_run(path):
            raise BadRun(f"{path} is not a run folder: it has no {RECORD_FILE}")
        settings = _with_validation(_read_json_object(path / CONFIG_FILE))
        try:
            record = RunRecord.from_json_object(_read_json_object(path / RECORD_FILE))
        except ValueError as error:
            raise BadRun(
                f"{path / RECORD_FILE} is damaged: {error}; restore it from a copy, or start a new run"
            ) from None
        config = config_from(Layer(settings, str(path / CONFIG_FILE)))
        record = record.with_known_ends(epochs=config.total_epochs, minutes=config.minutes)
        return cls(path, config=config, record=record)

    def check_settings(self, config: Config, *, may_extend: bool = False) -> None:
        """Raise `BadRun` unless `config` has the run's settings; with `may_extend` the end may differ."""
        own, given = to_json_object(self.config), to_json_object(config)
        free = MAY_DIFFER_ON_RESUME | _END if may_extend else MAY_DIFFER_ON_RESUME
        for name, value in own.items():
            if name not in free and given[name] != value:
                raise BadRun(
                    f"the run in {self.path} has {name}={value}, not {given[name]}:"
                    " resume it with its own settings, or start a new run in another folder"
                )

    def check_same(self, config: Config, dataset: Dataset, *, may_extend: bool = False) -> None:
        """Raise `BadRun` unless `config` and the images are the run's; see `check_settings`."""
        self.check_settings(config, may_extend=may_extend)
        if dataset.fingerprint() != self.record.data.sha256:
            text = f"the images of {dataset.name} are not the images of the run in {self.path}"
            if self.record.data.validation_images is None:
                text += (
                    "; an earlier version trained it, which held out other images: go on with that version,"
                    " or start a new run"
                )
            raise BadRun(text)

    def check_same_labels(self, dataset: Dataset) -> None:
        """Raise `BadRun` if the run's data have labels and they are not the same."""
        own = self.record.data.labels_sha256
        if own is not None and dataset.labels_fingerprint() != own:
            raise BadRun(f"the labels of {dataset.name} are not the labels of the run in {self.path}")

    def read_trained_on(self) -> Fingerprints | None:
        """Return the fingerprints of the images that the run trains on, or None if the run keeps none.

        Raises:
            BadRun: The file is missing or damaged.
        """
        entry = self.record.data.trained_on
        if entry is None:
            return None
        try:
            return decode_trained_on((self.path / entry.file).read_bytes(), entry)
        except OSError as error:
            raise BadRun(f"{self.path / entry.file} cannot be read: {error.strerror}") from None
        except BundleError as error:
            raise BadRun(f"{self.path}: {error}: restore the file from a copy") from None

    def move_end(self, config: Config) -> None:
        """Give the run the end of other settings. Figures of the weights before are dropped."""
        self.config = replace(self.config, epochs=config.epochs, minutes=config.minutes)
        self._evaluation.unlink(missing_ok=True)
        replace_file(self.path / CONFIG_FILE, _json(to_json_object(self.config)))

    def told_left_out(self, left_out: int | None) -> int | None:
        """Return how many of the run's own test images it was trained on, as far as it can be told.

        Args:
            left_out: The number by the run's fingerprints. None: it has none. Its split is known, so the
                number is 0, unless the run began with weights whose training images are not known.
        """
        return 0 if left_out is None and self.record.weights_from is None else left_out

    def begin_segment(self, segment: RunSegment) -> None:
        """Record a resume."""
        self.record = self.record.with_segment(segment)
        self._write_record()

    def _write_record(self) -> None:
        replace_file(self.path / "reproduce.txt", reproduce_text(self.config, self.record).encode())
        # Last: a folder without it is not a run.
        replace_file(self.path / RECORD_FILE, _json(self.record.to_json_object()))

    def discard_leftovers(self) -> None:
        """Delete the temporary files of a killed process. Only the process that resumes the run calls it."""
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def rewind_metrics(self, *, step: int) -> None:
        """Drop the lines after `step`, where training continues, and a last line that is incomplete."""
        kept = [json.dumps(line) + "\n" for line in self.read_metrics() if line["step"] <= step]
        replace_file(self.metrics, "".join(kept).encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of the metrics, up to the first one that is incomplete or damaged."""
        lines: list[dict[str, Any]] = []
        data = self.metrics.read_bytes() if self.metrics.exists() else b""
        for line in data.splitlines():
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(values, dict) or type(values.get("step")) is not int:
                break
            lines.append(values)
        return lines

    def write_evaluation(self, values: Mapping[str, Any]) -> None:
        """Write the figures on the test images."""
        replace_file(self._evaluation, _json(values))

    def read_evaluation(self) -> dict[str, Any] | None:
        """Return the figures on the test images, or None if the file is missing, damaged or incomplete."""
        try:
            values = json.loads(self._evaluation.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(values, dict) or not values.keys() >= EVALUATION_KEYS:
            return None
        absent = frozenset() if objective_class(self.config.objective).has_rate else _NEED_A_RATE
        for name in _NUMBERS:
            is_right = values[name] is None if name in absent else type(values[name]) in (int, float)
            if not is_right:
                return None
        is_right = all(type(values[name]) in (float, types.NoneType) for name in _NUMBERS_OR_NULL)
        return values if is_right else None

    @property
    def _evaluation(self) -> Path:
        return self.path / "evaluation.json"


def holds_run(path: Path) -> bool:
    """Return whether `path` is the folder of a run, which can be resumed."""
    return (path / RECORD_FILE).is_file()


def write_obstacle(folder: Path) -> str:
    """Return why no files can be made in `folder`, or in place of it if it is absent; "" if they can.

    This makes nothing.
    """
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            return f"{folder} is not a folder"
        if os.access(folder, os.W_OK | os.X_OK):
            return ""
        is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError as error:
        return error.strerror or str(error)
    return os.strerror(errno.EROFS if is_read_only else errno.EACCES)


def check_new(path: Path) -> None:
    """Raise `BadRun` unless `path` is a new or empty folder that can be written."""
    if (path / RECORD_FILE).exists():
        raise BadRun(f"{path} already holds a run: --resume continues it, another --run-dir starts a new one")
    if path.exists() and not path.is_dir():
        raise BadRun(f"{path} is a file: --run-dir must be a new or an empty folder")
    if path.is_dir() and any(entry.name not in (LOCK_FILE, LOG_FILE) for entry in path.iterdir()):
        raise BadRun(f"{path} is not empty and holds no run: --run-dir must be a new or an empty folder")
    if reason := write_obstacle(path):
        raise BadRun(f"run folder {path} cannot be written: {reason}: choose another --run-dir")


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise BadRun(f"{path} cannot be read: {error}") from None
    return values


def _with_validation(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run; one of an earlier version validated only to stop early."""
    if "validation_share" in settings or settings.get("early_stop_epochs") is not None:
        return settings
    return {**settings, "validation_share": 0.0}


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()
