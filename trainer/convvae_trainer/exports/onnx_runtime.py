"""ONNX Runtime on the CPU, through the service's engine, with errors of the trainer."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

from convvae_service.bundle import Precision
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.runtime import StartupError, choose_provider, import_runtime, make_session
from convvae_trainer.errors import ExportFailed, MissingExtra, TrainerError

__all__ = ["conversion_errors", "engine_errors", "half_converter", "open_session", "quantization_tools"]


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
def conversion_errors(precision: Precision) -> Iterator[None]:
    """Turn any error about a graph that is converted into one line. A full disk stays an `OSError`.

    Raises:
        ExportFailed: ONNX Runtime cannot convert the graph.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - the converters raise errors of every class
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise ExportFailed(
            f"ONNX Runtime cannot convert a graph to {precision}: {reason}; nothing was published"
        ) from None


def quantization_tools() -> Any:
    """Return the module `onnxruntime.quantization`.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
    """
    with engine_errors():
        # It sets the environment that ONNX Runtime reads at import.
        import_runtime()
    from onnxruntime import quantization

    return quantization


def half_converter() -> Any:
    """Return ONNX Runtime's function that converts a graph to 16-bit floats.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
    """
    with engine_errors():
        import_runtime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16


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
