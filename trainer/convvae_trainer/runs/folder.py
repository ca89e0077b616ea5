"""A run's folder: its settings, origin, metrics, checkpoint and evaluation.

run.json                 command, commit, library versions, hardware, data set, held-out part, segments
config.json              every setting, also those left at their default
metrics.jsonl            one JSON object a line: early steps, then one an epoch
checkpoint.safetensors   where to resume, and what to export
evaluation.json          figures on the test images, written at the end
reproduce.txt            how to make the same run again
tensorboard              figures and pictures for TensorBoard, where the run writes them
"""

import json
import os
import shlex
import types
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadRun
from convvae_trainer.evaluation.metrics import EVALUATION_KEYS
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.checkpoint import replace_file
from convvae_trainer.runs.segments import RunSegment, distinct, segments_of
from convvae_trainer.settings.config import Config, config_from, to_json_object
from convvae_trainer.settings.layers import Layer

__all__ = [
    "RunFolder",
    "can_be_written",
    "check_new",
    "describe_data",
    "read_evaluation",
    "repeatability",
    "reproducing_command",
]

RUN_FILE = "run.json"
PRECISIONS = ("fp32", "bf16")
# Where the data lie and what computes may differ on resume; what is computed may not.
MAY_DIFFER = frozenset({"dataset", "data_root", "device", "cuda_graph"})
# What is read of run.json, and its type.
_RECORD = {"command": str, "commit": str, "libraries": dict, "device": str, "precision": str, "threads": int}
_DATA = {"name": str, "image": list, "train_images": int, "test_images": int, "split": str, "sha256": str}
# The keys of evaluation.json whose values must be numbers.
_FIGURES = ("elbo", "distortion", "rate", "bits_per_dim", "active_units", "latent_dim", "images", "seed")
# What an autoencoder does not have.
_OF_A_PRIOR = frozenset({"elbo", "rate", "bits_per_dim"})


class RunFolder:
    """Paths and records of one run. Make one with `create` or `open`."""

    def __init__(self, path: Path, *, config: Config, record: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self.record = record

    @property
    def segments(self) -> list[RunSegment]:
        """The start of the run and its resumes, in their order."""
        return segments_of(self.record)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's file, which may not exist yet."""
        return self.path / "checkpoint.safetensors"

    @property
    def metrics(self) -> Path:
        """The metrics' file."""
        return self.path / "metrics.jsonl"

    @classmethod
    def create(cls, path: Path, *, config: Config, record: Mapping[str, Any]) -> Self:
        """Start a run in a new or empty folder.

        Raises:
            BadRun: The folder holds something, or cannot be written.
        """
        check_new(path)
        run = cls(path, config=config, record=dict(record))
        try:
            path.mkdir(parents=True, exist_ok=True)
            replace_file(path / "config.json", _json(to_json_object(config)))
            replace_file(path / "reproduce.txt", _reproduce(run).encode())
            replace_file(path / RUN_FILE, _json(run.record))
        except OSError as error:
            raise BadRun(f"run folder {path} cannot be written: {error.strerror}") from None
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing run.

        Raises:
            BadRun: There is none, or its records are damaged.
        """
        if not path.exists():
            raise BadRun(f"run folder {path} does not exist")
        if not path.is_dir():
            raise BadRun(f"{path} is a file, and no run folder")
        if not (path / RUN_FILE).is_file():
            raise BadRun(f"{path} holds no run: there is no {RUN_FILE} in it")
        values = {}
        for name in ("config.json", RUN_FILE):
            try:
                values[name] = json.loads((path / name).read_text(encoding="utf-8"))
                if not isinstance(values[name], dict):
                    raise ValueError("not a JSON object")
            except (OSError, ValueError, RecursionError) as error:
                raise BadRun(f"{path / name} cannot be read: {error}") from None
        record = values[RUN_FILE]
        data = record.get("data")
        for keys, held in ((_RECORD, record), (_DATA, data if isinstance(data, dict) else {})):
            for key, kind in keys.items():
                if type(held.get(key)) is not kind:
                    raise BadRun(f"{path / RUN_FILE} is damaged: it does not say {key!r}")
        if record["precision"] not in PRECISIONS or record["threads"] < 1:
            raise BadRun(f"{path / RUN_FILE} is damaged: its precision or threads are none")
        if len(record["data"]["image"]) != 3 or not all(
            type(side) is int for side in record["data"]["image"]
        ):
            raise BadRun(f"{path / RUN_FILE} does not say what the images are")
        try:
            segments_of(record)
        except ValueError as error:
            raise BadRun(f"{path / RUN_FILE} is damaged: {error}") from None
        config = config_from(Layer(values["config.json"], str(path / "config.json")))
        return cls(path, config=config, record=record)

    def check_settings(self, config: Config) -> None:
        """Raise `BadRun` unless `config` is that which the run was started with."""
        mine, theirs = to_json_object(self.config), to_json_object(config)
        for name, value in mine.items():
            if name not in MAY_DIFFER and theirs[name] != value:
                raise BadRun(
                    f"the run in {self.path} has {name}={value}, not {theirs[name]}:"
                    " resume with its own settings, or start a new run in another folder"
                )

    def check_same(self, config: Config, dataset: Dataset) -> None:
        """Raise `BadRun` unless `config` and the data are those that the run was started with."""
        self.check_settings(config)
        if dataset.fingerprint() != self.record["data"]["sha256"]:
            raise BadRun(
                f"the images of {dataset.name} are not those that the run in {self.path} started with"
            )

    def check_same_labels(self, dataset: Dataset) -> None:
        """Raise `BadRun` unless the labels are the run's; one that recorded none takes any."""
        recorded = self.record["data"].get("labels_sha256")
        if recorded is not None and dataset.labels_fingerprint() != recorded:
            raise BadRun(
                f"the labels of {dataset.name} are not those that the run in {self.path} started with"
            )

    def begin_segment(self, segment: RunSegment) -> None:
        """Record a resume, in place of segments that left no step behind."""
        kept = [before for before in self.segments if before.step < segment.step]
        self.record["segments"] = [asdict(one) for one in (*kept, segment)]
        replace_file(self.path / "reproduce.txt", _reproduce(self).encode())
        replace_file(self.path / RUN_FILE, _json(self.record))

    def discard_leftovers(self) -> None:
        """Delete the temporary files that a killed process left; only the one that goes on may call it."""
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def log(self, values: Mapping[str, Any]) -> None:
        """Append one line to the metrics."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, allow_nan=False) + "\n")

    def rewind_metrics(self, *, step: int) -> None:
        """Drop the lines beyond `step`, and one that was cut short: training goes on from there."""
        kept = [json.dumps(line) + "\n" for line in self.read_metrics() if line["step"] <= step]
        replace_file(self.metrics, "".join(kept).encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the metrics' lines up to the first that was cut short or damaged."""
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
        """Keep the figures on the test images."""
        replace_file(self.path / "evaluation.json", _json(values))


def read_evaluation(run: RunFolder) -> dict[str, Any] | None:
    """Return the figures that the end of training left in the run folder; None if they are not all there."""
    path = run.path / "evaluation.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not values.keys() >= EVALUATION_KEYS:
        return None
    absent = frozenset() if objective_class(run.config.objective).has_rate else _OF_A_PRIOR
    numbers = all(
        values[key] is None if key in absent else type(values[key]) in (int, float) for key in _FIGURES
    )
    return values if numbers and type(values["sigma"]) in (float, types.NoneType) else None


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in `folder`, or the folder itself where it is absent; nothing is made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def check_new(path: Path) -> None:
    """Raise `BadRun` if `path` holds anything, as nothing is overwritten, or if it cannot be written."""
    if (path / RUN_FILE).exists():
        raise BadRun(f"{path} already holds a run: --resume continues it, another --run-dir starts a new one")
    if path.exists() and not path.is_dir():
        raise BadRun(f"{path} is a file: --run-dir must be a new or an empty folder")
    if path.is_dir() and any(path.iterdir()):
        raise BadRun(f"{path} is not empty and holds no run: --run-dir must be a new or an empty folder")
    if not can_be_written(path):
        raise BadRun(f"run folder {path} cannot be written: choose another --run-dir")


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Return what `run.json` says of the data."""
    return {
        "name": dataset.name,
        "image": list(dataset.image.as_tuple),
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "split": dataset.split,
        "sha256": dataset.fingerprint(),
        "labels_sha256": dataset.labels_fingerprint(),
    }


def _reproduce(run: RunFolder) -> str:
    data, typed = run.record["data"], run.record["command"]
    # The first segment, since a start that left no step behind has computed nothing.
    start = run.segments[0]
    libraries = "\n".join(f"  {name} {version}" for name, version in start.libraries.items())
    return f"""How to make this run again

1. Install the same versions:
{libraries}
   code at commit {start.commit or "(not under git)"}
2. Have the same data: {data["name"]}, {data["train_images"]} training and {data["test_images"]} test images
   of {"x".join(map(str, data["image"]))} ({data["split"]});
   sha256 of all pixels {data["sha256"]}
3. Run in this folder, with a new folder for the new run:
   {reproducing_command(run)}

The command that was typed: {typed}
{_resumes(run)}{repeatability(run)}"""


def _resumes(run: RunFolder) -> str:
    return "".join(
        f"From step {segment.step} on, on {segment.device} ({segment.hardware}): {segment.command}\n"
        for segment in run.segments
        if segment.step or segment.command != run.record["command"]
    )


def repeatability(run: RunFolder) -> str:
    """Return a line on how equal a repeated run is, or "" where nothing is promised."""
    if run.config.minutes is not None:
        return "The clock decides how far such a run gets: expect comparable figures, not equal weights.\n"
    segments = run.segments
    # Several processes add up a batch in another order than one does.
    names = ("device", "hardware", "processes", "commit", "libraries")
    if any(len(distinct(segments, name)) > 1 for name in names):
        return (
            f"The run was trained in {len(segments)} segments that differ in device, hardware, number of"
            " processes, code or versions: expect comparable figures, not equal weights.\n"
        )
    if not segments[0].device.startswith("cpu"):
        return ""
    return "On such a CPU the same steps give the same weights, bit by bit.\n"


def reproducing_command(run: RunFolder) -> str:
    """Return the command that repeats the run: its settings, and the precision and threads that it took."""
    taken = ["--precision", run.record["precision"], "--threads", str(run.record["threads"])]
    processes = run.segments[0].processes
    program = ["convvae-train"]
    if processes > 1:
        program = ["torchrun", "--nproc-per-node", str(processes), "-m", "convvae_trainer"]
    command = [*program, "fit", "--config", "config.json", *taken, "--run-dir", "NEW_FOLDER"]
    return shlex.join(command)


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()
