"""Where a run computes, in which precision, and on how many threads."""

import ctypes
import math
import os
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from convvae_trainer.errors import BadConfig

__all__ = [
    "Computation",
    "autocast_of",
    "available_cores",
    "choose_computation",
    "enough_memory",
    "gpu_name",
    "is_out_of_memory",
    "keep_freed_memory",
    "pick_device",
    "synchronise",
]

ROUNDS = 7
BUDGET_S = 6.0
# So many times slower than the best: not tried again. In the first round only where it takes so long.
HOPELESS = 3.0
LONG_S = 0.5
# bf16 rounds, and one thread forgoes the other cores: they have to be worth it, beyond a measurement's noise.
WORTHWHILE = 0.9
# By so much more than is asked for the heap grows.
TOP_PAD_BYTES = 64 << 20
# Of malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
# convvae_service.engine.cpus reads it too, but of the service the trainer knows the bundle and pixels only.
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, kw_only=True, slots=True)
class Computation:
    """How a run computes: `fp32` or `bf16`, on so many threads, and a sentence on why."""

    precision: str
    threads: int
    reason: str

    @property
    def autocast(self) -> torch.dtype | None:
        """The type in which the networks compute; None for float32."""
        return autocast_of(self.precision)


def autocast_of(precision: str) -> torch.dtype | None:
    """Return the type in which networks compute in `fp32`, which is None, or `bf16`."""
    return torch.bfloat16 if precision == "bf16" else None


def pick_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:N` means here; from then on float32 is float32.

    Raises:
        BadConfig: It is none of these, or the GPU that is asked for is not there.
    """
    _switch_tf32_off()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", name, flags=re.ASCII):
        raise BadConfig(f"device is {name!r}: use auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadConfig(
            f"device is {name}, but torch sees {torch.cuda.device_count()} CUDA devices: use auto or cpu"
        )
    return device


def _switch_tf32_off() -> None:
    """Have GPUs multiply float32 as it is: by default convolutions round it to 10 bits of mantissa."""
    # These and not the newer `fp32_precision`: torch.compile still reads these, in 2.13 for the gradient of a
    # convolution, and torch raises where they are read after the newer ones were set.
    with warnings.catch_warnings():
        # torch 2.9 says that they will go.
        warnings.filterwarnings("ignore", "Please use the new API settings", UserWarning)
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def keep_freed_memory() -> bool:
    """Have the C library keep what this process frees from now on, and tell whether it knows how to.

    For steps on a CPU, once the data are read, whose leftovers would be kept too. By default glibc gives
    large blocks back to the system and asks for them again in each step, page by page: 6,000 page faults in
    a step on 128 digits, 7 % of its processor time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # No block is mapped for itself, and the heap never shrinks.
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: TOP_PAD_BYTES}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def gpu_name(device: torch.device) -> list[str]:
    """Return the name of the GPU's model; nothing of a CPU."""
    return [torch.cuda.get_device_name(device)] if device.type == "cuda" else []


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory cannot be had; on a CPU torch raises a bare RuntimeError."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raise `BadConfig` where the block's memory cannot be had."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise BadConfig(
            "memory ran out: lower batch_size or width, use fewer images, or on a GPU --no-cuda-graph"
        ) from None


def available_cores(quota: Path = CGROUP_QUOTA) -> int:
    """Return how many cores this process may use: by its affinity, and by a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        granted, period = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(granted) / int(period))))
    except (OSError, ValueError):
        return cores


def choose_computation(
    *,
    precision: str,
    threads: int | None,
    device: torch.device,
    trial: Callable[[torch.dtype | None], object],
    processes: int = 1,
    announce: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Computation:
    """Settle what was left open, by measuring the candidates in turns.

    On a machine that is busy with other work one thread can be many times faster than all: threads that
    wait for one another then wait for one that does not run.

    Args:
        precision: `auto`, `fp32` or `bf16`.
        threads: How many, or None to choose between all cores and one.
        device: Where the run computes.
        trial: Does one training step's work in a type (None: float32), and changes nothing.
        processes: How many of the run's processes share this machine's cores.
        announce: Called before anything is measured, which takes seconds.
        clock: Tells seconds.
    """
    precisions = [precision] if precision != "auto" else ["fp32", "bf16"] if _has_bf16(device) else ["fp32"]
    counts = [threads or max(1, available_cores() // processes)]
    if threads is None and counts[0] > 1 and device.type == "cpu":
        counts.append(1)
    candidates = [
        Computation(precision=kind, threads=count, reason="") for count in counts for kind in precisions
    ]
    if len(candidates) == 1:
        only = candidates[0]
        reason = "as asked" if precision != "auto" else "this device has no bf16 instructions"
        return Computation(precision=only.precision, threads=only.threads, reason=reason)
    announce()
    seconds = _measure(candidates, device, trial, clock)
    best = candidates[0]
    for candidate in seconds:
        if seconds[candidate] < WORTHWHILE * seconds[best]:
            best = candidate
    measured = ", ".join(f"{_words(c)} {1000 * seconds[c]:.3g}" for c in seconds)
    return Computation(
        precision=best.precision, threads=best.threads, reason=f"measured, ms a step: {measured}"
    )


def _measure(
    candidates: list[Computation],
    device: torch.device,
    trial: Callable[[torch.dtype | None], object],
    clock: Callable[[], float],
) -> dict[Computation, float]:
    """Return the median seconds of a trial for each candidate that was reached within the budget."""
    # The first trial is slower than the others, as memory and kernels are made: it counts where it is alone.
    first: dict[Computation, float] = {}
    times: dict[Computation, list[float]] = {candidate: [] for candidate in candidates}
    racing = list(candidates)
    threads = torch.get_num_threads()
    begin = clock()
    try:
        for number in range(ROUNDS + 1):
            for candidate in tuple(racing):
                if first and clock() - begin > BUDGET_S:
                    break
                torch.set_num_threads(candidate.threads)
                start = clock()
                trial(candidate.autocast)
                synchronise(device)
                taken = clock() - start
                if number:
                    times[candidate].append(taken)
                else:
                    first[candidate] = taken
                best = min(value for c in candidates for value in times[c] or [first.get(c, math.inf)])
                if taken > HOPELESS * best and (number or taken > LONG_S):
                    racing.remove(candidate)
    finally:
        torch.set_num_threads(threads)
    return {c: statistics.median(times[c] or [first[c]]) for c in candidates if c in first}


def _words(candidate: Computation) -> str:
    return f"{candidate.precision} on {candidate.threads} thread{'s' if candidate.threads > 1 else ''}"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Absent or emulated elsewhere: slower than float32 by far.
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported
