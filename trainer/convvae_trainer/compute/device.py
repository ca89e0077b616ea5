"""The device that a run computes on: a CPU or a GPU, and what happens when its memory runs out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from convvae_trainer.errors import BadConfig

__all__ = ["enough_memory", "gpu_name", "is_out_of_memory", "pick_device", "synchronise"]


def pick_device(name: str) -> torch.device:
    """Return the device for the setting `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is a GPU if there is one.

    Raises:
        BadConfig: The name is none of these, or torch does not see this GPU.
    """
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


def gpu_name(device: torch.device) -> str | None:
    """Return the GPU's model name, or None for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out. On a CPU torch raises a bare RuntimeError."""
    is_known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_known or "can't allocate memory" in str(error)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn an error of the block into `BadConfig` if it means that memory ran out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise BadConfig(
            "memory ran out: lower batch_size or width, use fewer images, or on a GPU --no-cuda-graph"
        ) from None
