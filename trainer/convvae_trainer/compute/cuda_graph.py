"""Steps captured as CUDA graphs: one launch replays some hundred kernels.

The kernels of a small network run for less time than the host needs to launch them one by one.
"""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["WARMUP_CALLS", "GraphedStep"]

# Calls before capture. Libraries allocate workspaces in their first calls, which a graph cannot contain.
WARMUP_CALLS = 3


class GraphedStep:
    """A function of a batch that is captured as a CUDA graph at its fourth call and replayed from then on.

    Everything else that the function reads and changes must be tensors with fixed addresses. A number that
    Python computes in it keeps the value that it had during capture.

    Args:
        function: Takes a batch on a CUDA device, always of one shape and dtype, and fetches nothing from the
            device.
        generator: The generator from which the function draws. Replays continue its sequence.
    """

    def __init__(self, function: Callable[[Tensor], object], generator: torch.Generator) -> None:
        self._function = function
        self._generator = generator
        self._num_plain = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch = torch.empty(0)

    def __call__(self, batch: Tensor) -> None:
        """Call or replay the function on a batch.

        Raises:
            ValueError: The batch has another shape than the captured one.
        """
        if self._graph is None and self._num_plain < WARMUP_CALLS:
            self._num_plain += 1
            self._function(batch)
            return
        if self._graph is None:
            self._graph = self._capture(batch)
        if batch.shape != self._batch.shape:
            raise ValueError(
                f"a batch of {tuple(batch.shape)} cannot be replayed as {tuple(self._batch.shape)}"
            )
        self._batch.copy_(batch)
        self._graph.replay()

    def _capture(self, batch: Tensor) -> torch.cuda.CUDAGraph:
        """Return the graph of the function on `self._batch`. Capture does not execute the kernels."""
        # Python must not destroy an older graph during capture.
        gc.collect()
        self._batch = batch.clone()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        device = batch.device
        # torch's default capture stream belongs to the first device that captured; this one is the batch's.
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream):
            self._function(self._batch)
        return graph
