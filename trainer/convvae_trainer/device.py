"""Where a run computes, and in which precision."""

import time
from collections.abc import Callable

import torch

from convvae_trainer.errors import BadConfig

__all__ = ["choose_precision", "pick_device", "synchronise"]

TRIAL_STEPS = 4
# bf16 rounds; it has to be worth it, and by more than the noise of a short measurement.
WORTHWHILE = 0.9


def pick_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:N` means here.

    Raises:
        BadConfig: The GPU that is asked for is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadConfig(
            f"device is {name}, but torch sees {torch.cuda.device_count()} CUDA devices: use auto or cpu"
        )
    return device


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def choose_precision(
    asked: str, device: torch.device, trial: Callable[[torch.dtype | None], object]
) -> tuple[str, str]:
    """Return (precision, reason): `fp32` or `bf16`, and a sentence on why.

    Args:
        asked: `auto`, `fp32` or `bf16`.
        device: Where the run computes.
        trial: Does one training step's work in a type (None: float32), and changes nothing.
    """
    if asked != "auto":
        return asked, "as asked"
    if not _has_bf16(device):
        return "fp32", "this device has no bf16 instructions"
    seconds = {}
    for name, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
        trial(dtype)
        synchronise(device)
        best = float("inf")
        for _ in range(TRIAL_STEPS):
            start = time.perf_counter()
            trial(dtype)
            synchronise(device)
            best = min(best, time.perf_counter() - start)
        seconds[name] = best
    ratio = seconds["fp32"] / seconds["bf16"]
    chosen = "bf16" if seconds["bf16"] < WORTHWHILE * seconds["fp32"] else "fp32"
    return chosen, f"measured: bf16 runs at {ratio:.2f} times the speed of fp32"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Absent or emulated elsewhere: slower than float32 by far.
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported
