"""The random numbers of the training steps."""

import torch
from torch import Tensor

from convvae_trainer.compute.distributed import SINGLE_PROCESS, DistContext

__all__ = ["NoiseSource"]


class NoiseSource:
    """Draws of a generator, the same for any number of processes.

    Each draw is made for the batch of all processes, and every process keeps its own rows.

    Args:
        generator: Its device is the device of the draws.
        dist: The processes that share each batch.
    """

    def __init__(self, generator: torch.Generator, dist: DistContext = SINGLE_PROCESS) -> None:
        self._generator = generator
        self._dist = dist

    def normal(self, count: int, *shape: int) -> Tensor:
        """Return float32 standard normal draws of shape (count, *shape), for `count` rows of this process."""
        size = (count * self._dist.size, *shape)
        drawn = torch.randn(size, generator=self._generator, device=self._generator.device)
        return self._dist.rows(drawn)

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Return float32 draws in [0, 1) of shape (count, *shape), for `count` rows of this process."""
        size = (count * self._dist.size, *shape)
        drawn = torch.rand(size, generator=self._generator, device=self._generator.device)
        return self._dist.rows(drawn)
