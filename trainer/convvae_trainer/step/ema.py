"""The averaged weights, which are evaluated and exported, and the best of them so far."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["EmaWeights"]


class EmaWeights:
    """An exponential moving average of parameters.

    Args:
        parameters: By name; they go on being trained.
        decay: Of the average. 0: none is kept, the present weights stand for it.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, decay: float) -> None:
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._decay = decay
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        self._best: list[Tensor] | None = None

    @torch.no_grad()
    def update(self, num_steps: int) -> None:
        """Move towards the present weights, faster in the first steps."""
        decay = min(self._decay, (1 + num_steps) / (10 + num_steps))
        torch._foreach_lerp_(self._average, list[Tensor](self._parameters), 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Use the average in place of the present weights for as long as the context lasts."""
        if not self._decay:
            yield
            return
        kept = [parameter.detach().clone() for parameter in self._parameters]
        try:
            self._load(self._average)
            yield
        finally:
            self._load(kept)

    @torch.no_grad()
    def _load(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def keep_best(self) -> None:
        """Remember the average as it is now as the best so far."""
        with self.swapped_in():
            self._best = [parameter.detach().clone() for parameter in self._parameters]

    def restore_best(self) -> None:
        """Make the best so far the average, if there is one."""
        if self._best is not None:
            self._average = [value.clone() for value in self._best]
            if not self._decay:
                self._load(self._best)

    @torch.no_grad()
    def fill(self, name: str, value: float) -> None:
        """Set one parameter, now and in the average."""
        place = self._names.index(name)
        self._parameters[place].fill_(value)
        self._average[place].fill_(value)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint has to hold, by name."""
        held = {f"average.{n}": value for n, value in zip(self._names, self._average, strict=True)}
        for name, value in zip(self._names, self._best or [], strict=self._best is not None):
            held[f"best.{name}"] = value
        return held

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; raises KeyError or RuntimeError where it does not fit."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(tensors[f"average.{name}"])
        if f"best.{self._names[0]}" in tensors:
            best = [torch.empty_like(average) for average in self._average]
            for name, value in zip(self._names, best, strict=True):
                value.copy_(tensors[f"best.{name}"])
            self._best = best
