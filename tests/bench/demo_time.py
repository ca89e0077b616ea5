"""Run the demonstration, and write how long it took to results/demo_time.json.

python tests/bench/demo_time.py
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from convvae_trainer.runs.provenance import hardware

ROOT = Path(__file__).resolve().parents[2]
RESULT = Path(__file__).parent / "results" / "demo_time.json"
TARGET_S = 180.0
TARGET_TRAINING_S = 90.0


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        started_s = time.monotonic()
        subprocess.run([sys.executable, str(ROOT / "deploy" / "demo.py")], cwd=folder, check=True)
        seconds = time.monotonic() - started_s
        manifest = json.loads(Path(folder, "demo/models/digits/1/manifest.json").read_text())
    metrics = manifest["training"]["metrics"]
    result = {
        "figure": "seconds for `make demo` after the install",
        "demo_s": round(seconds, 1),
        "target_s": TARGET_S,
        "training_s": round(metrics["training_seconds"], 1),
        "target_training_s": TARGET_TRAINING_S,
        "epochs": manifest["training"]["epochs"],
        "training_metrics": metrics,
        "parity": manifest["parity"]["fp32"],
        "hardware": hardware(),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "libraries": {name: metadata.version(name) for name in ("convvae", "torch", "onnxruntime-gpu")},
        "command": "python tests/bench/demo_time.py",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"demo {result['demo_s']} s, training {result['training_s']} s, written to {options.out}")


if __name__ == "__main__":
    main()
