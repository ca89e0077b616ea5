"""Several processes that train one model, as torchrun starts them; one process is a world of its own.

Every process holds all data and draws the noise of the whole batch, of which it takes its rows: the batch is
the same, image by image, however many processes share it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convvae_trainer.errors import BadConfig

__all__ = ["ALONE", "World", "joined"]


@dataclass(frozen=True, slots=True)
class World:
    """This process's place among those that share a run.

    `control` is a group on the CPU for what the processes agree on at each step.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder and the screen."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return this process's own GPU where the run takes any; else the device as it is."""
        if self.size == 1 or device.type != "cuda" or device.index is not None:
            return device
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def rows(self, values: Tensor) -> Tensor:
        """Return this process's equal share of a whole batch's rows."""
        share = len(values) // self.size
        return values[self.rank * share : (self.rank + 1) * share]

    @torch.no_grad()
    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one exchange."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        low = 0
        for tensor in tensors:
            tensor.copy_(flat[low : low + tensor.numel()].view_as(tensor))
            low += tensor.numel()

    def agree(self, fraction: float, stop: int) -> tuple[float, int]:
        """Return the first process's share of the run done, and the stop signal of any process (or 0)."""
        if self.size == 1:
            return fraction, stop
        values = torch.tensor([fraction if self.is_first else -1.0, float(stop)], dtype=torch.float64)
        torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX, group=self.control)
        return values[0].item(), int(values[1].item())

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            torch.distributed.barrier(group=self.control)

    def share(self, value: Any) -> Any:
        """Return the first process's `value`, a JSON-like object, in all of them."""
        if self.size == 1:
            return value
        held = [value]
        torch.distributed.broadcast_object_list(held, src=0, group=self.control)
        return held[0]


ALONE = World()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started, if it did.

    Raises:
        BadConfig: torchrun's variables are there in part, or make no sense.
    """
    try:
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    except ValueError:
        raise BadConfig("WORLD_SIZE, RANK and LOCAL_RANK are no numbers: let torchrun set them") from None
    if size == 1:
        yield ALONE
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise BadConfig(f"WORLD_SIZE is {size}, but {missing[0]} is not set: start with torchrun")
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, rank=rank, world_size=size)
    try:
        control = torch.distributed.new_group(backend="gloo")
        yield World(rank=rank, size=size, local_rank=local_rank, control=control)
    finally:
        torch.distributed.destroy_process_group()
