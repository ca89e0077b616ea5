"""A call that runs in steps, and its outcomes."""

from collections.abc import Coroutine
from typing import Any

from convvae_service.calls.running_call import RunningCall

__all__ = ["Ends"]


class Ends:
    """The outcomes of a call: `start` begins it, and there must be exactly one in the end."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.outcomes: list[Any] = []
        self.call = RunningCall(coroutine, self.outcomes.append)

    def start(self) -> None:
        self.call.start()

    @property
    def only(self) -> Any:
        assert self.call.ended
        (outcome,) = self.outcomes
        return outcome
