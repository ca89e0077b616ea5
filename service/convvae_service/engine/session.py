"""A graph loaded in ONNX Runtime, with rows in and rows out.

Dimensions: B = batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import BundleError, Graph
from convvae_service.engine.arena import Arenas
from convvae_service.engine.runtime import CUDA, import_runtime, make_session

__all__ = ["Session"]

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class Session:
    """One graph on one device. Safe to call from several threads."""

    def __init__(
        self,
        data: bytes,
        graph: Graph,
        *,
        provider: tuple[str, dict[str, Any]],
        threads: int,
        arenas: Arenas,
        fall_back: bool,
    ) -> None:
        """Load the graph.

        Args:
            data: ONNX bytes of the graph.
            graph: The manifest's entry for it.
            provider: Execution provider and options, from `choose_provider`.
            threads: Number of threads of one run.
            arenas: Settings of the graph's memory.
            fall_back: Whether to run on the CPU if the GPU cannot be used.

        Raises:
            BundleError: ONNX Runtime cannot load it, or its inputs or outputs differ from the manifest's.
            StartupError: The GPU cannot be used and `fall_back` is false.
        """
        self._session = make_session(
            data,
            name=graph.file,
            provider=provider,
            threads=threads,
            arenas=arenas,
            fall_back=fall_back,
        )
        _check_signature(self._session, graph)
        self._outputs = {tensor.name: tensor for tensor in graph.outputs}
        # The shape of one row of each output.
        self.row_shapes = {name: _sizes(tensor.shape[1:]) for name, tensor in self._outputs.items()}
        self._run_options = import_runtime().RunOptions()
        self.provider: str = self._session.get_providers()[0]
        # On the CPU a plain run copies nothing, and binding would take 15 us of processor time per run.
        self.binds = self.provider == CUDA

    def run(self, outputs: Sequence[str], name: str, rows_B: NDArray[Any]) -> list[NDArray[Any]]:
        """Run the graph on the input `name` and return the named `outputs` as new arrays."""
        rows_B = np.ascontiguousarray(rows_B)
        if self.binds:
            return self._run_bound(outputs, name, rows_B)
        results: list[NDArray[Any]] = self._session.run(outputs, {name: rows_B}, self._run_options)
        return results

    def interrupt(self) -> None:
        """End all runs with an error, the present ones after their present operator."""
        self._run_options.terminate = True

    def _run_bound(self, outputs: Sequence[str], name: str, rows_B: NDArray[Any]) -> list[NDArray[Any]]:
        """Run with bound inputs and outputs: one copy of the rows to the device and one of each result back.

        Both copies are part of the run, which releases the GIL.
        """
        binding = self._session.io_binding()
        binding.bind_cpu_input(name, rows_B)
        results = []
        for output in outputs:
            tensor = self._outputs[output]
            result = np.empty((len(rows_B), *self.row_shapes[output]), tensor.dtype)
            binding.bind_output(output, "cpu", 0, result.dtype.type, result.shape, result.ctypes.data)
            results.append(result)
        self._session.run_with_iobinding(binding, self._run_options)
        return results


def _check_signature(session: Any, graph: Graph) -> None:
    for kind, actual, expected in (
        ("inputs", session.get_inputs(), graph.inputs),
        ("outputs", session.get_outputs(), graph.outputs),
    ):
        found = {(a.name, _DTYPES.get(a.type, a.type), _sizes(a.shape)) for a in actual}
        stated = {(t.name, t.dtype, _sizes(t.shape)) for t in expected}
        if found != stated:
            raise BundleError(
                f"{graph.file} has other {kind} than the manifest: {sorted(found)}, not {sorted(stated)}"
            )


def _sizes(shape: Any) -> tuple[int, ...]:
    """Return `shape` with -1 in place of every dynamic axis."""
    return tuple(size if isinstance(size, int) else -1 for size in shape)
