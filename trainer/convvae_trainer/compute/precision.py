"""The precision in which networks compute: float32, or bfloat16 where the hardware computes it natively."""

from dataclasses import dataclass

import torch

__all__ = ["ComputePrecision", "autocast_dtype", "choose_precision"]


@dataclass(frozen=True, slots=True)
class ComputePrecision:
    """A precision, `fp32` or `bf16`, and a sentence on why it was chosen."""

    name: str
    reason: str


def choose_precision(setting: str, device: torch.device) -> ComputePrecision:
    """Return the precision that the setting `auto`, `fp32` or `bf16` means on a device.

    `auto` is bf16 on a device with bf16 instructions, else fp32, since emulated bf16 is far slower.
    """
    if setting != "auto":
        return ComputePrecision(setting, f"precision is set to {setting}")
    hardware = "GPU" if device.type == "cuda" else "CPU"
    if _has_bf16(device):
        return ComputePrecision("bf16", f"this {hardware} has bf16 instructions")
    return ComputePrecision("fp32", f"this {hardware} has no bf16 instructions")


def autocast_dtype(precision: str) -> torch.dtype | None:
    """Return the type to which autocast rounds: bfloat16 for `bf16`, None (no autocast) for `fp32`."""
    return torch.bfloat16 if precision == "bf16" else None


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported
