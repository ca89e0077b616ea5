"""The execution of a study: its runs are trained by child processes, and a line says how far it is."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from convvae_trainer.console import ProgressLine, clock, say
from convvae_trainer.runs.lock import RunLock
from convvae_trainer.runs.signals import noted_signals
from convvae_trainer.study.children import Children
from convvae_trainer.study.folder import StudyFolder
from convvae_trainer.study.plan import PlannedRun
from convvae_trainer.study.progress import StudyProgress

__all__ = ["Execution", "train_runs"]

# How often signals and the screen are looked at, in seconds.
POLL_S = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """The end of an execution: why runs failed, by name, and the signal that stopped it, or None."""

    failed: Mapping[str, str]
    stopped_by: signal.Signals | None


def train_runs(
    folder: StudyFolder,
    runs: Sequence[PlannedRun],
    *,
    finished: Mapping[str, float],
    lock: RunLock,
    jobs: int,
    threads: int,
    console: Console,
    on_finished: Callable[[PlannedRun], object],
) -> Execution:
    """Train and export the runs of a study that are not finished.

    At a signal, the runs in training save a checkpoint, and all child processes end.

    Args:
        folder: The folder of the study, with its plan.
        runs: All runs of the study.
        finished: The seconds that each finished run took, by name.
        lock: The lock of the folder.
        jobs: The number of runs that are trained at a time.
        threads: CPU threads of each.
        console: Shows the progress, and each run that ends.
        on_finished: Called after each run whose model is published.
    """
    children = Children(folder, lock, jobs=jobs, threads=threads)
    waiting = [run for run in runs if run.name not in finished]
    progress = StudyProgress(folder, runs, finished=finished, jobs=jobs)
    failed: dict[str, str] = {}
    with noted_signals() as signals, children.ended(), ProgressLine(console, "starting") as line:
        while not signals and (waiting or children.running):
            while waiting and not children.is_full:
                run = waiting.pop(0)
                progress.begin(run)
                children.begin(run.name)
            for reply, seconds in children.replies(within_s=POLL_S):
                run = progress.end(reply.run, None if reply.text else seconds)
                if reply.text:
                    failed[run.name] = reply.text
                    say(console, f"failed     {run.name}: {reply.text}")
                else:
                    say(console, f"finished   {run.name} in {clock(seconds)}")
                    on_finished(run)
            if line.is_due:
                progress.look()
                line.show(progress.text(columns=line.columns), share=progress.share)
        if signals:
            say(console, "stopping: the runs in training save a checkpoint")
            children.stop()
    return Execution(failed=failed, stopped_by=signals[0] if signals else None)
