"""A run: cell by cell over all servers, within a limit of time, and its files."""

import datetime
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.serving.cell import Cell
from bench.serving.cells import left_out
from bench.serving.conversation import Conversation
from bench.serving.plot import plot
from bench.serving.ratios import ratios
from bench.serving.report import report_of
from bench.serving.server import Server
from bench.serving.summary import Summary
from bench.serving.window import Window, measure
from convvae_trainer.runs.provenance import code_commit, hardware

__all__ = ["Run", "end_on_signals"]

LIBRARIES = (
    "convvae",
    "grpcio",
    "numpy",
    "onnxruntime-gpu",
    "protobuf",
    "pygrpc-native",
    "simplejpeg",
    "uvloop",
)


def end_on_signals() -> None:
    """Let signals end the program in order, so that no server outlives it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


class Run:
    """The figures of a run so far.

    Attributes:
        cells: Figures by cell and server.
        left_out: Why each cell or server that is missing was not measured.
    """

    def __init__(self, *, pairs: int, seconds: float, limit_s: float) -> None:
        self.cells: dict[str, dict[str, Any]] = {}
        self.left_out: dict[str, str] = {}
        self._pairs, self._seconds = pairs, seconds
        self._last_s = time.monotonic() + limit_s
        self._load_before = os.getloadavg()

    @property
    def over(self) -> bool:
        """Whether the time is used up."""
        return time.monotonic() > self._last_s

    def measure(self, cells: Sequence[Cell], servers: Sequence[Server], bare: Conversation) -> None:
        """Measure each cell on the servers that have its graphs, and print a line for each."""
        for cell in cells:
            why = "the time was used up" if self.over else left_out(cell)
            having = [server for server in servers if server.serves(cell)]
            if why or not having:
                self.left_out[str(cell)] = why or "no server has its graphs"
                continue
            windows: dict[str, list[Window]] = {server.name: [] for server in having}
            try:
                for name, window in measure(cell, having, bare, pairs=self._pairs, seconds=self._seconds):
                    windows[name].append(window)
            except (OSError, RuntimeError) as error:
                self.left_out[str(cell)] = str(error)[:500]
                print(f"{cell}: {error}", file=sys.stderr, flush=True)
            for name, each in windows.items():
                self._add(cell, name, each)

    def _add(self, cell: Cell, name: str, windows: Sequence[Window]) -> None:
        whole = [window for window in windows if not window.failed]
        if len(whole) < len(windows):
            failed = [error for window in windows for error in window.errors]
            why = f"{len(windows) - len(whole)} of {len(windows)} windows had calls that failed: {failed[0]}"
            self.left_out[f"{cell}, {name}"] = why
            print(f"{cell!s:28} {name:10} {why}", file=sys.stderr, flush=True)
        if whole:
            summary = Summary.of(whole)
            self.cells.setdefault(str(cell), {})[name] = summary.as_dict()
            print(f"{cell!s:28} {name:10} {summary}", flush=True)

    def publish(self, out: Path, *, figure: str, reference: str, more: Mapping[str, Any]) -> None:
        """Write the result as JSON, Markdown and PNG, under the name of `out`.

        Args:
            out: The JSON file.
            figure: What was measured.
            reference: The server that the others are compared with, if it was measured.
            more: Other entries of the result.
        """
        result = {
            "figure": figure,
            "cells": self.cells,
            "reference": reference,
            "ratios": ratios(self.cells, reference),
            **more,
            "left_out": self.left_out,
            "pairs": self._pairs,
            "seconds_of_a_window": self._seconds,
            "hardware": hardware(),
            "load_average_1_5_15_min": {"before": list(self._load_before), "after": list(os.getloadavg())},
            "libraries": {name: metadata.version(name) for name in LIBRARIES},
            "commit": code_commit(),
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
        out.with_suffix(".md").write_text(report_of(result))
        if self.cells:
            plot(result, out.with_suffix(".png"))
        print(f"{out}, .md and .png")
