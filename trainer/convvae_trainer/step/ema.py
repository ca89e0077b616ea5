"""The averaged weights, which are evaluated and exported, and the best of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["EmaWeights"]


class EmaWeights:
    """An exponential moving average of parameters.

    Args:
        parameters: The parameters by name. Training goes on changing them.
        decay: Decay of the average. 0: the current weights are used in place of an average.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, decay: float) -> None:
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._decay = decay
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        self._best: list[Tensor] | None = None

    @torch.no_grad()
    def update(self, num_steps: int) -> None:
        """Move the average towards the current weights, with a smaller decay in the first steps."""
        decay = min(self._decay, (1 + num_steps) / (10 + num_steps))
        torch._foreach_lerp_(self._average, list[Tensor](self._parameters), 1 - decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again from the current weights."""
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        self._best = None

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Put the average in place of the current weights until the context ends."""
        if not self._decay:
            yield
            return
        current = [parameter.detach().clone() for parameter in self._parameters]
        try:
            self._load(self._average)
            yield
        finally:
            self._load(current)

    @torch.no_grad()
    def _load(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def keep_best(self) -> None:
        """Keep a copy of the average as the best weights."""
        with self.swapped_in():
            self._best = [parameter.detach().clone() for parameter in self._parameters]

    def restore_best(self) -> None:
        """Replace the average by the best weights, if any were kept."""
        if self._best is not None:
            self._average = [value.clone() for value in self._best]
            if not self._decay:
                self._load(self._best)

    @torch.no_grad()
    def fill(self, name: str, value: float) -> None:
        """Set all values of one parameter and of its average."""
        index = self._names.index(name)
        self._parameters[index].fill_(value)
        self._average[index].fill_(value)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint, by name."""
        average = zip(self._names, self._average, strict=True)
        tensors = {f"average.{name}": value for name, value in average}
        if self._best is not None:
            best = zip(self._names, self._best, strict=True)
            tensors |= {f"best.{name}": value for name, value in best}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned; raises KeyError or RuntimeError if names or shapes differ."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(tensors[f"average.{name}"])
        if f"best.{self._names[0]}" in tensors:
            best = [torch.empty_like(average) for average in self._average]
            for name, value in zip(self._names, best, strict=True):
                value.copy_(tensors[f"best.{name}"])
            self._best = best
