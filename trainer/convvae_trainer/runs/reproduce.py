"""How to repeat a run: the text of `reproduce.txt`, the command, and how equal the repeated run will be."""

import shlex

from convvae_trainer.runs.record import RunRecord
from convvae_trainer.settings.config import Config

__all__ = ["repeatability", "reproduce_text", "reproducing_command"]

_COMPARABLE = "expect comparable figures, not equal weights"


def reproduce_text(config: Config, record: RunRecord) -> str:
    """Return the text of `reproduce.txt`."""
    # The first segment, not the run's first command: a start that was killed early has computed no step.
    start, data = record.segments[0], record.data
    libraries = "\n".join(f"  {name} {version}" for name, version in start.libraries.items())
    return f"""How to repeat this run

1. Install the same versions:
{libraries}
   code at commit {start.commit or "(not under git)"}
2. Use the same data: {data.name}, {data.train_images} training, {data.validation_images or 0} validation and
   {data.test_images} test images of {data.image}
   (test: {data.split}; validation: {data.validation_split or "none"});
   sha256 of all pixels {data.sha256}
3. Run in this folder, with a new folder for the new run:
   {reproducing_command(record)}

The command that started this run: {record.command}
{_resumes(record)}{repeatability(config, record)}"""


def _resumes(record: RunRecord) -> str:
    return "".join(
        f"From step {segment.step} on, on {segment.device} ({segment.hardware}): {segment.command}\n"
        for segment in record.segments
        if segment.step or segment.command != record.command
    )


def repeatability(config: Config, record: RunRecord) -> str:
    """Return a line on how equal a repeated run is, or "" where nothing is promised (on a GPU)."""
    if config.minutes is not None:
        return f"Time limits the number of steps of this run: {_COMPARABLE}.\n"
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


def reproducing_command(record: RunRecord) -> str:
    """Return the command that repeats the run with its settings, precision and threads."""
    processes = record.segments[0].processes
    program = ["convvae-train"]
    if processes > 1:
        program = ["torchrun", "--nproc-per-node", str(processes), "-m", "convvae_trainer"]
    precision = ["--precision", record.precision, "--threads", str(record.threads)]
    return shlex.join([*program, "fit", "--config", "config.json", *precision, "--run-dir", "NEW_FOLDER"])
