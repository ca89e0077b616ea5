"""ONNX Runtime as the trainer uses it: one graph, on the CPU, on the cores that there are."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.engine.cpus import available_cpus
from convvae_trainer.errors import MissingExtra

__all__ = ["Graph", "open_graph"]

Graph = Callable[[NDArray[Any]], list[NDArray[Any]]]


def open_graph(data: bytes) -> Graph:
    """Return what runs a graph: its one input to all its outputs.

    Args:
        data: ONNX bytes, without external data.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        Exception: It cannot load the graph; its exceptions share no base class.
    """
    # It would note an identity of this machine and report to its makers; read when it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "gpu", "cpu") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    # Threads that spin while they wait take the cores from the rest of the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(given: NDArray[Any]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = session.run(None, {name: np.ascontiguousarray(given)})
        return outputs

    return run
