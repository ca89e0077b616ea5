"""The number of CPUs that this process may use, from its affinity mask and its control group's quota."""

import math
import os
from pathlib import Path

__all__ = ["available_cpus"]


def available_cpus(*, root: Path = Path("/")) -> int:
    """Return the number of CPUs that the process may keep busy, at least 1.

    A container with a quota of 2 CPUs on a host with 64 sees 64. With more threads than its quota allows, it
    is throttled.

    Args:
        root: The folder that contains `proc` and `sys` (for tests).
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(affinity, _quota(root))))


def _quota(root: Path) -> float:
    """Return the smallest CPU quota of the process's control groups, in CPUs, or infinity without a quota."""
    quotas = [math.inf]
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        v1 = "cpu" in controllers.split(",")
        if controllers and not v1:
            continue
        base = root / "sys/fs/cgroup" / ("cpu" if v1 else "")
        # The quotas of all parent groups apply too. In a container the group itself is mounted at the base.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        quotas += [_group_quota(base.joinpath(*parts[:depth]), v1=v1) for depth in range(len(parts) + 1)]
    return min(quotas)


def _group_quota(group: Path, *, v1: bool) -> float:
    if v1:
        words = [_read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip()]
    else:
        words = _read(group / "cpu.max").split()
    try:
        quota_us, period_us = (float(word) for word in words)
    except ValueError:  # the file is absent, or contains "max"
        return math.inf
    return quota_us / period_us if quota_us > 0 and period_us > 0 else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
