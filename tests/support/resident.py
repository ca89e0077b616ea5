"""The memory that a process has, and the most that it had."""

from pathlib import Path

__all__ = ["peak_kib", "reset_peak", "resident_kib"]


def resident_kib(pid: int | None = None) -> int:
    """Return the resident memory of a process; None: of this one."""
    return _status_kib(pid, "VmRSS")


def peak_kib(pid: int | None = None) -> int:
    """Return the largest resident memory of a process since its start, or since `reset_peak`."""
    return _status_kib(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Let `peak_kib` count from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_kib(pid: int | None, name: str) -> int:
    status = Path(f"/proc/{'self' if pid is None else pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
