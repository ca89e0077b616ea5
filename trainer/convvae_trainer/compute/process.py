"""Settings of torch and of the C library that hold for the whole process.

The commands call `configure_process`. A program that calls `fit` has to call it first only for a run on a
GPU, with `compile`, or with another number of `threads` than torch has. `fit` itself changes none of these
settings. It refuses a run whose results they would change.
"""

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch._functorch.config

from convvae_service.engine.cpus import available_cpus
from convvae_trainer.errors import BadConfig

__all__ = ["check_process", "configure_process", "default_threads", "restored_settings"]

# Parameters of mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
# Bytes that malloc takes from the system beyond each request.
_TOP_PAD_BYTES = 64 << 20


def default_threads(*, processes: int = 1) -> int:
    """Return the CPU threads of each of `processes` processes that share this machine; 1 or above."""
    return max(1, available_cpus() // processes)


def configure_process(*, threads: int | None = None, keep_freed_memory: bool = False) -> None:
    """Set what training and evaluation need of this process.

    GPUs multiply float32 values without rounding them to TF32, and compiled graphs keep their buffers for a
    second backward pass.

    Args:
        threads: CPU threads of torch. None: torch's own choice.
        keep_freed_memory: Make the C library keep freed memory for the next step, for training on a CPU. Do
            this after the data are read: otherwise memory that reading has freed is kept too.
    """
    _switch_tf32_off()
    # By default a buffer is overwritten in the first backward pass. Adversarial objectives take two.
    torch._functorch.config.donated_buffer = False
    if threads is not None:
        torch.set_num_threads(threads)
    if keep_freed_memory:
        _keep_freed_memory()


@contextmanager
def restored_settings() -> Iterator[None]:
    """Restore the settings of torch after the block, which may have configured the process."""
    threads = torch.get_num_threads()
    donated = torch._functorch.config.donated_buffer
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings", UserWarning)
        tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch._functorch.config.donated_buffer = donated
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Please use the new API settings", UserWarning)
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32


def check_process(*, threads: int, device: torch.device, is_compiled: bool) -> None:
    """Raise `BadConfig` unless this process is configured for a run.

    Args:
        threads: CPU threads of the run.
        device: Where the run computes.
        is_compiled: Whether the run compiles its networks.
    """
    remedy = f"call convvae_trainer.compute.process.configure_process(threads={threads}) first"
    if (actual := torch.get_num_threads()) != threads:
        raise BadConfig(f"the run computes on {threads} CPU threads, but torch uses {actual}: {remedy}")
    if device.type == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32):
        raise BadConfig(f"torch rounds float32 to TF32, which changes the results: {remedy}")
    if is_compiled and torch._functorch.config.donated_buffer:
        raise BadConfig(f"torch.compile frees buffers that a second backward pass needs: {remedy}")


def _switch_tf32_off() -> None:
    """Stop GPUs from rounding float32 to TF32 (10 bits of mantissa), the default for convolutions."""
    # These are the older settings. torch.compile still reads them (in 2.13, for the gradient of a
    # convolution), and torch raises an error when they are read after the newer `fp32_precision` was set.
    with warnings.catch_warnings():
        # torch 2.9 announces that they will be removed.
        warnings.filterwarnings("ignore", "Please use the new API settings", UserWarning)
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def _keep_freed_memory() -> bool:
    """Make the C library keep the memory that this process frees; return False if it is not glibc.

    By default glibc returns large blocks to the system and requests them again in each step, page by page:
    6,000 page faults in a step on 128 digits, 7 % of its processor time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # No block is a mapping of its own, and the heap never shrinks.
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: _TOP_PAD_BYTES}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
