"""ONNX Runtime on the CPU, through the service's engine, with errors of the trainer."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.runtime import StartupError, choose_provider, make_session
from convvae_trainer.errors import MissingExtra, TrainerError

__all__ = ["engine_errors", "open_session"]


def open_session(data: bytes, *, name: str) -> Any:
    """Return an ONNX Runtime session that uses all available CPUs.

    Args:
        data: ONNX bytes, without external data.
        name: The graph's name in error messages.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
        MissingExtra: ONNX Runtime is not installed.
    """
    with engine_errors():
        return make_session(data, name=name, provider=choose_provider("cpu"), threads=available_cpus())


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Turn the engine's start-up errors into errors of the trainer, which the user sees as one line.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        TrainerError: The installed ONNX Runtime cannot be used.
    """
    # The engine's own message names the service's extra, which the trainer does not need.
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtra("onnxruntime", "gpu", "cpu")
    try:
        yield
    except StartupError as error:
        raise TrainerError(str(error)) from None
