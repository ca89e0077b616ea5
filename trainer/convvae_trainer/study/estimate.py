"""The time that is left of a study, from the time that its runs take."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Estimate", "RunningRun", "training_so_far"]

# Below this share of a run, the time so far says little about its whole time.
LEAST_SHARE = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningRun:
    """A run in training: its system, the seconds that it has trained, and the share that is done, 0 to 1."""

    system: str
    trained_s: float
    share: float

    @property
    def whole_s(self) -> float | None:
        """The time of the whole run at the speed so far, in seconds; None if it is too early to say."""
        return self.trained_s / self.share if self.share >= LEAST_SHARE else None


@dataclass(slots=True)
class Estimate:
    """The seconds that finished runs took, by system. Runs of one system take equally long."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, system: str, seconds: float) -> None:
        """Take a finished run into account."""
        self.seconds.setdefault(system, []).append(seconds)

    def left_s(self, waiting: Sequence[str], running: Sequence[RunningRun], *, jobs: int) -> float | None:
        """Return the seconds until all runs are finished, or None if nothing is known yet.

        A system of which no run is finished counts as long as the mean of the others.

        Args:
            waiting: The system of each run that has not begun.
            running: The runs in training.
            jobs: The number of runs that are trained at a time.
        """
        whole_s = {system: sum(times) / len(times) for system, times in self.seconds.items()}
        for run in running:
            if run.system not in whole_s and run.whole_s is not None:
                whole_s[run.system] = run.whole_s
        if not whole_s:
            return None
        mean_s = sum(whole_s.values()) / len(whole_s)
        of_running = [(1 - run.share) * (run.whole_s or whole_s.get(run.system, mean_s)) for run in running]
        of_waiting = [whole_s.get(system, mean_s) for system in waiting]
        return max([sum(of_running + of_waiting) / jobs, *of_running])


def training_so_far(metrics: Path) -> tuple[float, float]:
    """Return the epochs and the seconds of training that the last whole line of a `metrics.jsonl` states.

    Both are 0 if there is no such line.
    """
    try:
        lines = metrics.read_bytes().splitlines()
    except OSError:
        return 0.0, 0.0
    for line in reversed(lines[-2:]):
        try:
            values = json.loads(line)
            return float(values["epoch"]), float(values["elapsed_s"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0.0, 0.0
