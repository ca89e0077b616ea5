"""A measured figure as a file: what was found, by which command, on what, with what, when."""

import argparse
import datetime
import json
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from convvae_trainer.runs.provenance import code_commit, hardware

__all__ = ["FRONTS", "measure_to_files"]

FRONTS = ("grpcio", "native")
LIBRARIES = (
    "convvae", "grpcio", "numpy", "onnxruntime-gpu",
    "prometheus-client", "protobuf", "pygrpc-native", "uvloop",
)  # fmt: skip


def measure_to_files(program: str, doc: str | None, measure: Callable[[str], dict[str, Any]]) -> None:
    """Run a measurement for each front, or for the one of `--front`, and write FOLDER/FRONT/NAME.json.

    FOLDER is `results` beside the program, or that of `--out`.

    Args:
        program: `__file__` of the program, with NAME.
        doc: Its docstring.
        measure: Returns the figures with a front, and `met`: whether each target is.
    """
    path = Path(program)
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--front", choices=FRONTS, help="the only front to measure")
    parser.add_argument("--out", type=Path, default=path.parent / "results", metavar="FOLDER")
    options = parser.parse_args()
    for front in [options.front] if options.front else FRONTS:
        _write(options.out / front / f"{path.stem}.json", path, front, measure)


def _write(out: Path, path: Path, front: str, measure: Callable[[str], dict[str, Any]]) -> None:
    load_before = os.getloadavg()
    result = {
        "front": front,
        **measure(front),
        "hardware": hardware(),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "commit": code_commit(),
        "command": f"python tests/{path.parent.name}/{path.name} --front {front}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{path.stem} {front}: {json.dumps(result['met'])}")
