"""A training run that ends before one of its steps."""

from collections.abc import Callable
from typing import Any

import pytest

from convvae_trainer.step.train_state import TrainState


class Killed(BaseException):
    """Stands for a kill: nothing of the program runs after it."""


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Have `act` called right before step `number` of the next run."""
    step = TrainState.step

    def wrapped(self: TrainState, *args: Any, **kwargs: Any) -> None:
        if self.num_steps == number:
            act()
        step(self, *args, **kwargs)

    monkeypatch.setattr(TrainState, "step", wrapped)


def kill() -> None:
    raise Killed
