"""How to repeat a run: the text of `reproduce.txt`, the commands, and how equal the repeated run will be."""

import shlex
from itertools import pairwise

from convvae_trainer.runs.record import RunRecord, RunSegment
from convvae_trainer.settings.config import Config

__all__ = ["repeatability", "reproduce_text", "reproducing_commands"]

_COMPARABLE = "expect comparable figures, not equal weights"


def reproduce_text(config: Config, record: RunRecord) -> str:
    """Return the text of `reproduce.txt`."""
    # The first segment, not the run's first command: a start that was killed early has computed no step.
    start, data = record.segments[0], record.data
    libraries = "\n".join(f"  {name} {version}" for name, version in start.libraries.items())
    commands = "\n   ".join(reproducing_commands(record))
    return f"""How to repeat this run

1. Install the same versions:
{libraries}
   code at commit {start.commit or "(not under git)"}
2. Use the same data: {data.name}, {data.train_images} training, {data.validation_images or 0} validation and
   {data.test_images} test images of {data.image}
   (test: {data.split}; validation: {data.validation_split or "none"});
   sha256 of all pixels {data.sha256}{_weights(record)}
3. Run in this folder, with a new folder for the new run:
   {commands}

The command that started this run: {record.command}
{_resumes(record)}{repeatability(config, record)}"""


def _weights(record: RunRecord) -> str:
    source = record.weights_from
    if source is None:
        return ""
    file = "manifest" if source.step is None else f"checkpoint of step {source.step}"
    return f"\n   and the same first weights: {source.reference}; sha256 of its {file} {source.sha256}"


def _resumes(record: RunRecord) -> str:
    moved = _moved_ends(record)
    return "".join(
        f"From step {segment.step} on{_end_words(segment, moved)}, on {segment.device} ({segment.hardware}):"
        f" {segment.command}\n"
        for segment in record.segments
        if segment.step or segment.command != record.command
    )


def _end_words(segment: RunSegment, moved: list[RunSegment]) -> str:
    if segment not in moved:
        return ""
    end = f"{segment.epochs} epochs" if segment.minutes is None else f"{segment.minutes:g} minutes"
    return f" to {end}"


def _moved_ends(record: RunRecord) -> list[RunSegment]:
    """Return the segments with another end than the segment before."""
    return [after for before, after in pairwise(record.segments) if before.end != after.end]


def _end_flag(segment: RunSegment) -> list[str]:
    if segment.minutes is not None:
        return ["--minutes", f"{segment.minutes:g}"]
    return ["--epochs", str(segment.epochs)]


def repeatability(config: Config, record: RunRecord) -> str:
    """Return a line on how equal a repeated run is, or "" where nothing is promised (on a GPU)."""
    if config.minutes is not None or any(segment.minutes is not None for segment in record.segments):
        return f"Time limits the number of steps of this run: {_COMPARABLE}.\n"
    if any(not segment.follows_end for segment in _moved_ends(record)):
        return f"The end of this run was moved before it was reached: {_COMPARABLE}.\n"
    # The sum over a batch is taken in another order if several processes share it.
    names = ("device", "hardware", "processes", "commit", "libraries")
    if any(len(record.distinct(name)) > 1 for name in names):
        return (
            f"This run has {len(record.segments)} segments that differ in device, hardware, number of"
            f" processes, code or versions: {_COMPARABLE}.\n"
        )
    if not record.segments[0].device.startswith("cpu"):
        return ""
    return "On the same kind of CPU, the same steps give the same weights, bit by bit.\n"


def reproducing_commands(record: RunRecord, *, with_paths: bool = True) -> list[str]:
    """Return the commands that repeat the run with its settings, precision and threads.

    A run that was given a later end has one command for the start, and one for each new end.

    Args:
        record: The record of the run.
        with_paths: Whether the weights that the run started from are named by their path, or by their name.
    """
    processes = record.segments[0].processes
    program = ["convvae-train"]
    if processes > 1:
        program = ["torchrun", "--nproc-per-node", str(processes), "-m", "convvae_trainer"]
    moved = _moved_ends(record)
    # The settings in the run folder have the last end.
    first_end = _end_flag(record.segments[0]) if moved else []
    precision = ["--precision", record.precision, "--threads", str(record.threads)]
    origin = []
    if (source := record.weights_from) is not None:
        origin = ["--from", source.reference if with_paths else str(source)]
    settings = ["--config", "config.json", *origin, *first_end, *precision]
    words = [*program, "fit", *settings, "--run-dir", "NEW_FOLDER"]
    later = [[*program, "fit", "--resume", *_end_flag(each), "--run-dir", "NEW_FOLDER"] for each in moved]
    return [shlex.join(each) for each in (words, *later)]
