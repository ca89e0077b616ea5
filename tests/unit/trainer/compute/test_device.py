"""The device that a run computes on, and what is said when its memory runs out."""

import pytest
import torch

from convvae_trainer.compute.device import enough_memory, pick_device
from convvae_trainer.errors import BadConfig


def test_a_missing_gpu_is_refused() -> None:
    """The error for a GPU that is not there says how many there are."""
    count = torch.cuda.device_count()
    with pytest.raises(BadConfig, match=f"device is cuda:{count}, but torch sees {count} CUDA devices"):
        pick_device(f"cuda:{count}")
    for name in ("foo", "cuda:999", "cuda:", "mps"):
        with pytest.raises(BadConfig, match=f"device is '{name}': use auto, cpu, cuda or cuda:N"):
            pick_device(name)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_runs_out_is_said_in_one_line(error: Exception) -> None:
    """The user can change a model or batch that is too large; other errors are not hidden."""
    with pytest.raises(BadConfig, match="memory ran out: lower batch_size or width"), enough_memory():
        raise error
    with pytest.raises(RuntimeError, match="shapes"), enough_memory():
        raise RuntimeError("shapes cannot be multiplied")
