"""The progress of a study as one line: the runs in training, their number, and the time that is left."""

from collections.abc import Mapping, Sequence

from convvae_trainer.console import clock
from convvae_trainer.study.estimate import Estimate, RunningRun, training_so_far
from convvae_trainer.study.folder import StudyFolder
from convvae_trainer.study.plan import PlannedRun

__all__ = ["StudyProgress"]


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
        # The runs in training, and whether each was resumed.
        self._is_resumed: dict[str, bool] = {}
        self._running: list[RunningRun] = []
        self._num_ended = len(finished)
        self._estimate = Estimate()
        for name, seconds in finished.items():
            self._estimate.add(self._runs[name].system, seconds)

    def begin(self, run: PlannedRun) -> None:
        """Note that a run has begun."""
        self._waiting.remove(run.name)
        self._is_resumed[run.name] = self._look_at(run).share > 0

    def end(self, name: str, seconds: float | None) -> PlannedRun:
        """Note that a run has ended, after this time; None: it has failed. Return the run."""
        run = self._runs[name]
        # The rest of a run says little about a whole one.
        if not self._is_resumed.pop(name) and seconds is not None:
            self._estimate.add(run.system, seconds)
        self._num_ended += 1
        return run

    def look(self) -> None:
        """Look how far the runs in training are."""
        self._running = [self._look_at(self._runs[name]) for name in self._is_resumed]

    @property
    def share(self) -> float:
        """The share of the runs that is done, 0 to 1."""
        return (self._num_ended + sum(run.share for run in self._running)) / len(self._runs)

    def text(self, *, columns: int) -> str:
        """Return the state in one line of at most so many columns, 30 or more."""
        names = list(self._is_resumed)
        ordinal = self._num_ended + len(names)
        number = f"run {ordinal}" if len(names) < 2 else f"runs {self._num_ended + 1}-{ordinal}"
        waiting = [self._runs[name].system for name in self._waiting]
        left_s = self._estimate.left_s(waiting, self._running, jobs=self._jobs)
        left = "" if left_s is None else f"  {clock(left_s)} left"
        head = f"{number} of {len(self._runs)}  "
        room = max(0, columns - len(head) - len(left))
        words = ", ".join(names)
        return head + (words if len(words) <= room else f"{words[: max(0, room - 1)]}…"[:room]) + left

    def _look_at(self, run: PlannedRun) -> RunningRun:
        epochs, trained_s = training_so_far(self._folder.metrics(run.name))
        share = min(1.0, epochs / (run.config.total_epochs or 1))
        return RunningRun(system=run.system, trained_s=trained_s, share=share)
