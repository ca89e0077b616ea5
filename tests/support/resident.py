"""The memory that a process has."""

from pathlib import Path

__all__ = ["resident_kib"]


def resident_kib(pid: int | None = None) -> int:
    """Return the resident memory of a process; None: of this one."""
    status = Path(f"/proc/{'self' if pid is None else pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])
