"""The execution of a study: its runs are trained by child processes, and a line says how far it is."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from convvae_trainer.console import ProgressLine, clock, say
from convvae_trainer.runs.lock import RunLock
from convvae_trainer.runs.signals import noted_signals
from convvae_trainer.study.children import Child, Children
from convvae_trainer.study.estimate import Estimate, RunningRun, epochs_done
from convvae_trainer.study.folder import StudyFolder
from convvae_trainer.study.plan import PlannedRun

__all__ = ["Execution", "train_runs"]

# How often signals and the screen are looked at, in seconds.
POLL_S = 0.25
# With the bar of 20 columns and a space, a line has 80.
LINE_COLUMNS = 59


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
    progress = _Progress(folder, runs, finished=finished, jobs=jobs)
    failed: dict[str, str] = {}
    with noted_signals() as signals, children.ended(), ProgressLine(console, "starting") as line:
        while not signals and (waiting or children.running):
            while waiting and not children.is_full:
                run = waiting.pop(0)
                children.begin(run.name)
                progress.begin(run)
            for reply, seconds in children.replies(within_s=POLL_S):
                run = progress.end(reply.run, None if reply.text else seconds)
                if reply.text:
                    failed[run.name] = reply.text
                    say(console, f"failed     {run.name}: {reply.text}")
                else:
                    say(console, f"finished   {run.name} in {clock(seconds)}")
                    on_finished(run)
            if line.is_due:
                progress.look(children.running)
                line.show(progress.text(), share=progress.share)
        if signals:
            say(console, "stopping: the runs in training save a checkpoint")
            children.stop()
    return Execution(failed=failed, stopped_by=signals[0] if signals else None)


class _Progress:
    """How far a study is, and the time that is left."""

    def __init__(
        self, folder: StudyFolder, runs: Sequence[PlannedRun], *, finished: Mapping[str, float], jobs: int
    ) -> None:
        self._folder = folder
        self._runs = {run.name: run for run in runs}
        self._jobs = jobs
        self._waiting = [run.name for run in runs if run.name not in finished]
        self._shares_before: dict[str, float] = {}
        self._running: list[RunningRun] = []
        self._num_ended = len(finished)
        self._estimate = Estimate()
        for name, seconds in finished.items():
            self._estimate.add(self._runs[name].system, seconds)

    def begin(self, run: PlannedRun) -> None:
        """Note that a run has begun."""
        self._waiting.remove(run.name)
        self._shares_before[run.name] = self._share(run)

    def end(self, name: str, seconds: float | None) -> PlannedRun:
        """Note that a run has ended, after this time; None: it has failed. Return the run."""
        run = self._runs[name]
        # A resumed run says little about a whole one.
        if seconds is not None and not self._shares_before[name]:
            self._estimate.add(run.system, seconds)
        del self._shares_before[name]
        self._num_ended += 1
        return run

    def look(self, children: Mapping[str, Child]) -> None:
        """Look how far the runs in training are."""
        self._running = [
            RunningRun(
                system=self._runs[name].system,
                elapsed_s=child.elapsed_s,
                share_before=self._shares_before[name],
                share=self._share(self._runs[name]),
            )
            for name, child in children.items()
        ]

    @property
    def share(self) -> float:
        """The share of the runs that is done, 0 to 1."""
        return (self._num_ended + sum(run.share for run in self._running)) / len(self._runs)

    def text(self) -> str:
        """Return the state in one line."""
        names = list(self._shares_before)
        ordinal = self._num_ended + len(names)
        number = f"run {ordinal}" if len(names) < 2 else f"runs {self._num_ended + 1}-{ordinal}"
        waiting = [self._runs[name].system for name in self._waiting]
        left_s = self._estimate.left_s(waiting, self._running, jobs=self._jobs)
        left = "" if left_s is None else f"  {clock(left_s)} left"
        head = f"{number} of {len(self._runs)}  "
        room = LINE_COLUMNS - len(head) - len(left)
        words = ", ".join(names)
        return head + (words if len(words) <= room else f"{words[: room - 1]}…") + left

    def _share(self, run: PlannedRun) -> float:
        done = epochs_done(self._folder.metrics(run.name))
        return min(1.0, done / (run.config.total_epochs or 1))
