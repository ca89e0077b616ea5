"""The division of the CPUs among batches that run at the same time.

Two batches of one thread each beat one batch of two threads: up to 1.6 times the rows per second, for up to
a quarter less processor time a row (docs/measurements.md). Only a lone small call of a large graph waits
longer.
"""

from dataclasses import dataclass

from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.runtime import has_gpu

__all__ = ["Parallelism", "choose_parallelism"]

# Each lane has the memory of one batch, in each graph.
_MAX_LANES = 8


@dataclass(frozen=True, slots=True)
class Parallelism:
    """The number of batches that run at the same time, and the number of threads of each."""

    lanes: int
    threads: int


def choose_parallelism(lanes: int, threads: int, *, device: str) -> Parallelism:
    """Return the given numbers, with 0 replaced by a choice.

    Without a number of lanes, there is one for each available CPU, and 8 at most; one on a GPU, which runs
    one batch after another. Without a number of threads, the lanes share the available CPUs.

    Args:
        lanes: Number of lanes, 0 to choose it.
        threads: Threads of one batch, 0 to choose it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """
    cpus = available_cpus()
    if not lanes:
        lanes = 1 if device != "cpu" and has_gpu() else min(cpus, _MAX_LANES)
    return Parallelism(lanes, threads or max(1, cpus // lanes))
