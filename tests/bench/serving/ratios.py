"""Ratios of the servers of a run to one of them, cell by cell."""

from collections.abc import Mapping
from typing import Any

__all__ = ["ratios"]


def ratios(cells: Mapping[str, Mapping[str, Mapping[str, Any]]], reference: str) -> dict[str, dict[str, Any]]:
    """Return the ratios of each server's medians to those of `reference`, for the cells that it has."""
    found: dict[str, dict[str, Any]] = {}
    for cell, servers in cells.items():
        if reference not in servers:
            continue
        base = servers[reference]
        for name, figures in servers.items():
            if name == reference:
                continue
            found.setdefault(cell, {})[name] = {
                "cpu": round(figures["cpu_us"]["median"] / base["cpu_us"]["median"], 3),
                **{each: round(figures[each] / base[each], 3) for each in ("rows_per_s", "p50_ms", "p99_ms")},
            }
    return found
