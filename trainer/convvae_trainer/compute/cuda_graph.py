"""Work on batches of one shape, graphed as a CUDA graph and replayed: one launch for some hundred kernels.

The kernels of a small network take less time than a host needs to launch them one by one.
"""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["WARMUP_CALLS", "GraphedStep"]

# What libraries make at their first calls has no place in a graph.
WARMUP_CALLS = 3


class GraphedStep:
    """A function of a batch: called as it is at first, graphed at its fourth call, replayed from then on.

    All else that it reads and changes must be tensors that stay where they are: a number that Python
    computes in it is for ever what it was when it was graphed.

    Args:
        function: Takes a batch on a CUDA device, always of the same shape and type; fetches nothing from it.
        generator: The one from which the function draws; the draws of replays go on from those before.
    """

    def __init__(self, function: Callable[[Tensor], object], generator: torch.Generator) -> None:
        self._function = function
        self._generator = generator
        self._num_plain = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch = torch.empty(0)

    def __call__(self, batch: Tensor) -> None:
        """Do the function's work on a batch.

        Raises:
            ValueError: The batch has not the shape of the one that was graphed.
        """
        if self._graph is None and self._num_plain < WARMUP_CALLS:
            self._num_plain += 1
            self._function(batch)
            return
        if self._graph is None:
            self._graph = self._record(batch)
        if batch.shape != self._batch.shape:
            raise ValueError(
                f"a batch of {tuple(batch.shape)} cannot be replayed as {tuple(self._batch.shape)}"
            )
        self._batch.copy_(batch)
        self._graph.replay()

    def _record(self, batch: Tensor) -> torch.cuda.CUDAGraph:
        """Return the graph of the function's work on `self._batch`, which is not done yet."""
        # A graph of something that is garbage must not be ended while this one is graphed.
        gc.collect()
        self._batch = batch.clone()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        device = batch.device
        # A stream of this device: torch's own for recording is of the device that was graphed on first.
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream):
            self._function(self._batch)
        return graph
