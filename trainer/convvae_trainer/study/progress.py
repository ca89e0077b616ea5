"""The progress of a study as one line: the runs in training, their number, and the time that is left."""

from collections.abc import Mapping, Sequence

from convvae_trainer.console import clock
from convvae_trainer.study.estimate import Estimate, RunningRun, epochs_done
from convvae_trainer.study.folder import StudyFolder
from convvae_trainer.study.plan import PlannedRun

__all__ = ["LINE_COLUMNS", "StudyProgress"]

# With a bar of 20 columns and a space, the line has 80.
LINE_COLUMNS = 59


class StudyProgress:
    """How far a study is, and the time that is left.

    Args:
        folder: The folder of the study.
        runs: All runs of the study.
        finished: The seconds that each run took that was finished before, by name.
        jobs: The number of runs that are trained at a time.
    """

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

    def look(self, elapsed_s: Mapping[str, float]) -> None:
        """Look how far the runs in training are, with the seconds since each began, by name."""
        self._running = [
            RunningRun(
                system=self._runs[name].system,
                elapsed_s=seconds,
                share_before=self._shares_before[name],
                share=self._share(self._runs[name]),
            )
            for name, seconds in elapsed_s.items()
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
