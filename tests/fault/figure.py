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

__all__ = ["RESULTS", "measure_to_file"]

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("convvae", "grpcio", "numpy", "onnxruntime-gpu", "prometheus-client", "protobuf", "uvloop")


def measure_to_file(program: str, doc: str | None, measure: Callable[[], dict[str, Any]]) -> None:
    """Run a measurement, and write results/NAME.json or the file that `--out` names.

    Args:
        program: `__file__` of the program.
        doc: Its docstring.
        measure: Returns the figures, with `met`: whether each target is.
    """
    path = Path(program)
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{path.stem}.json")
    options = parser.parse_args()
    load_before = os.getloadavg()
    result = {
        **measure(),
        "hardware": hardware(),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "commit": code_commit(),
        "command": f"python tests/fault/{path.name}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{path.stem}: {json.dumps(result['met'])}")
