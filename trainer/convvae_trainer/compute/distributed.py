"""The processes that train one model together, as torchrun starts them.

Every process holds all data, draws the noise of the whole batch, and takes its rows of both. So a batch is
the same, image by image, for any number of processes.
"""

import datetime
import importlib
import os
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from convvae_trainer.errors import BadConfig, TrainingFailed

__all__ = ["SINGLE_PROCESS", "DistContext", "joined"]

# Processes wait this long while one of them downloads or evaluates. The end of a process is noticed at once,
# since its connections close.
TIMEOUT = datetime.timedelta(days=1)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DistContext:
    """The position of this process among the processes of a run.

    `rank` and `size` count all processes, `local_rank` and `local_size` those of this machine.
    `control_group` returns the process group for messages between CPUs. torch owns it; a reference here would
    keep it alive when torch ends it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    control_group: Callable[[], Any] = lambda: None

    @property
    def is_first(self) -> bool:
        """Whether this process writes to the run folder and the screen."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return this process's own GPU if the processes use GPUs, else `device`.

        Raises:
            BadConfig: This machine has fewer GPUs than processes.
        """
        if self.size == 1 or device.type != "cuda":
            return device
        if device.index is not None and self.local_size > 1:
            raise BadConfig(f"device is {device}: {self.local_size} processes need one GPU each: use cuda")
        index = self.local_rank if device.index is None else device.index
        if self.local_size > torch.cuda.device_count():
            raise BadConfig(
                f"{self.local_size} processes need one GPU each, but torch sees {torch.cuda.device_count()}:"
                f" start {torch.cuda.device_count()} with torchrun --nproc-per-node"
            )
        torch.cuda.set_device(index)
        return torch.device("cuda", index)

    def rows(self, values: Tensor) -> Tensor:
        """Return this process's rows of a whole batch, an equal share."""
        share = len(values) // self.size
        return values[self.rank * share : (self.rank + 1) * share]

    @torch.no_grad()
    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one exchange."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
        with _dist_errors():
            torch.distributed.all_reduce(flat)
        flat /= self.size
        low = 0
        for tensor in tensors:
            tensor.copy_(flat[low : low + tensor.numel()].view_as(tensor))
            low += tensor.numel()

    def sync_progress(self, fraction: float, stop: int) -> tuple[float, int]:
        """Return how much of the run is done in the first process, and a stop signal of any process, or 0."""
        if self.size == 1:
            return fraction, stop
        values = torch.tensor([fraction if self.is_first else -1.0, float(stop)], dtype=torch.float64)
        with _dist_errors():
            torch.distributed.all_reduce(
                values, op=torch.distributed.ReduceOp.MAX, group=self.control_group()
            )
        return values[0].item(), int(values[1].item())

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            with _dist_errors():
                torch.distributed.barrier(group=self.control_group())

    def broadcast(self, value: _T) -> _T:
        """Return the first process's `value`, a JSON-like object, in all of them."""
        if self.size == 1:
            return value
        held = [value]
        with _dist_errors():
            torch.distributed.broadcast_object_list(held, src=0, group=self.control_group())
        return held[0]

    def gather(self, value: _T) -> list[_T]:
        """Return every process's `value`, a JSON-like object, in all of them."""
        if self.size == 1:
            return [value]
        held: list[_T] = [value] * self.size
        with _dist_errors():
            torch.distributed.all_gather_object(held, value, group=self.control_group())
        return held

    def rank0_first(self, make: Callable[[], _T]) -> _T:
        """Call `make` in the first process, then in one process of each other machine, then in the rest.

        Later processes find the files that earlier ones have written.
        """
        mine = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        made: list[_T] = []
        for turn in range(3 if self.size > 1 else 1):
            if turn == mine:
                made.append(make())
            self.wait()
        return made[0]


# A run in one process: every exchange returns its input.
SINGLE_PROCESS = DistContext()


@contextmanager
def joined(device: torch.device) -> Iterator[DistContext]:
    """Join the processes that torchrun started, or yield `SINGLE_PROCESS` without torchrun.

    Raises:
        BadConfig: Some of torchrun's environment variables are missing or are not numbers.
    """
    try:
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    except ValueError:
        raise BadConfig(
            "WORLD_SIZE, RANK or LOCAL_RANK is not a number: start with torchrun, which sets them"
        ) from None
    if size == 1:
        yield SINGLE_PROCESS
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise BadConfig(f"WORLD_SIZE is {size}, but {missing[0]} is not set: start with torchrun")
    backend = "nccl" if device.type == "cuda" else "gloo"
    # Optimisers import this module. If that happens after the group is made, the default arguments of its
    # functions hold the group, which then never ends.
    importlib.import_module("torch.distributed.nn.functional")
    with _dist_errors():
        torch.distributed.init_process_group(backend, rank=rank, world_size=size)
    try:
        with _dist_errors():
            control_group = weakref.ref(torch.distributed.new_group(backend="gloo", timeout=TIMEOUT))
        yield DistContext(
            rank=rank, size=size, local_rank=local_rank, local_size=local_size, control_group=control_group
        )
    finally:
        # This ends the groups' threads. A thread that frees a tensor while Python exits aborts the process.
        torch.distributed.destroy_process_group()


@contextmanager
def _dist_errors() -> Iterator[None]:
    """Report in one line that another process cannot be reached, for example because it has ended."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # The frames of torch's calls hold the group, which could then not end.
        traceback.clear_frames(error.__traceback__)
        raise TrainingFailed(
            "another process of this run ended, or cannot be reached: its own message says why, or"
            f" {' '.join(str(error).split())[:200]!r}"
        ) from None
