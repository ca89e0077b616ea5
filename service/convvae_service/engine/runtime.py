"""ONNX Runtime: the installed build, the device that it can use, and sessions with explicit settings."""

import logging
import os
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from convvae_service.bundle import BundleError
from convvae_service.engine.arena import DEFAULT_ARENAS, Arenas
from convvae_service.errors import StartupError

__all__ = ["CUDA", "StartupError", "choose_provider", "has_gpu", "import_runtime", "make_session"]

CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_DEVICE_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")

_log = logging.getLogger(__name__)


def import_runtime() -> ModuleType:
    """Import onnxruntime.

    Raises:
        StartupError: No build is installed, or two builds, which overwrite each other's files.
    """
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(builds) == 2:
        raise StartupError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files:"
            " uninstall both, then install convvae[gpu] or convvae[cpu]"
        )
    # Telemetry would store an identity of this machine and send reports. The variable is read at import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise StartupError(
            "ONNX Runtime is not installed: pip install 'convvae[service,gpu]', or 'convvae[service,cpu]'"
            " on a machine without a GPU"
        ) from None
    return onnxruntime  # type: ignore[no-any-return]


def has_gpu() -> bool:
    """Return whether the system has an NVIDIA device, whether or not this process can use it."""
    return any(Path(node).exists() for node in _DEVICE_NODES)


def choose_provider(device: str, arenas: Arenas = DEFAULT_ARENAS) -> tuple[str, dict[str, Any]]:
    """Return the execution provider and its options for `device`: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        StartupError: `device` names CUDA, and CUDA is not available.
    """
    if device == "cpu":
        return _CPU, {}
    runtime = import_runtime()
    missing = None
    if not has_gpu():
        missing = "no NVIDIA device is present"
    elif CUDA not in runtime.get_available_providers():
        missing = "this build of ONNX Runtime has no CUDA support: install convvae[gpu]"
    if missing is None:
        # Loads the CUDA and cuDNN libraries of the wheels. They are large, so only if there is a device.
        runtime.preload_dlls()
        index = device.partition(":")[2] or "0"
        # The default, EXHAUSTIVE, benchmarks every new batch size: 634 ms against 1.9 ms per call.
        return CUDA, {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC", **arenas.provider_options()}
    if device == "auto":
        _log.info("running on the CPU", extra={"facts": {"reason": missing}})
        return _CPU, {}
    raise StartupError(f"device {device!r}: {missing}; use --device auto or cpu to run without a GPU")


def make_session(
    data: bytes,
    *,
    name: str,
    provider: tuple[str, dict[str, Any]],
    threads: int,
    arenas: Arenas = DEFAULT_ARENAS,
    fall_back: bool = False,
) -> Any:
    """Return an ONNX Runtime session of the graph `data`.

    Args:
        data: ONNX bytes, without external data.
        name: Name of the graph in messages.
        provider: Execution provider and options, from `choose_provider`.
        threads: Number of threads of one run.
        arenas: Settings of the graph's memory.
        fall_back: Whether to run on the CPU if the GPU cannot be used.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
        StartupError: The GPU cannot be used and `fall_back` is false.
    """
    runtime = import_runtime()
    options = runtime.SessionOptions()
    # Each session has its own thread pool, because a shared pool always spins when it is set from Python.
    # With 2 threads on 2 cores the shared pool took 41 ms of processor time after each run, and 1.7 times the
    # time per row (tests/bench/results/runtime_settings.json).
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads that spin slow down other processes and use up a CPU quota.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    arenas.configure(options)
    # ONNX Runtime's warnings about a valid graph do not help an operator.
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(
            data, options, providers=[provider, _CPU] if provider[0] != _CPU else [_CPU]
        )
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class
        raise BundleError(f"ONNX Runtime cannot load {name}: {str(error).splitlines()[0][:300]}") from None
    # If CUDA fails to start, ONNX Runtime uses the CPU without an error.
    if session.get_providers()[0] != provider[0]:
        if not fall_back:
            raise StartupError(
                f"ONNX Runtime could not use the GPU for {name}: see its message above, or use --device cpu"
            )
        _log.warning("the GPU cannot be used, running on the CPU", extra={"facts": {"graph": name}})
    return session


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
