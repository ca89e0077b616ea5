"""Hold AE, VAE, VAE_Dis_l and VAE/GAN against the lecture's claims, by `convvae-train study`.

    python tests/bench/lecture_study.py {mnist,digits,digits16,cifar10} [DATA_ROOT] [--folder DIR]
    python tests/bench/lecture_study.py {mnist,digits,digits16,cifar10} --report REPORT.json

All four systems with three seeds each. The result is results/lecture_study_NAME.json: of each system mean and
deviation over the seeds, and each claim with its verdict and the numbers that decide. Images are held out,
measured and judged as the study does it: docs/compare.md. With --folder the study is kept, with its report;
the same command goes on with a study that was stopped. --report publishes a report that is there.

DATA_ROOT (default ../shared/data) holds `MNIST/raw` and `cifar10-train.tar`, 50,000 JPEG files by class.
"""

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
# Half of the default widths, so that two busy cores train twelve models of 60,000 images within the hour.
HALF_WIDTH = ("--width", "16", "--hidden", "256", "--discriminator-width", "16", "--epochs", "3")
STUDIES: dict[str, tuple[str, ...]] = {
    "mnist": ("--dataset", "mnist", *HALF_WIDTH),
    "digits": ("--dataset", "digits"),
    "digits16": ("--dataset", "digits", "--image-size", "16"),
    "cifar10": ("--dataset", "cifar10/train", "--latent-dim", "64", *HALF_WIDTH),
}
# The least share of reconstructions that the classifier has to read rightly.
LEAST_READ = {"VAE_Dis_l": 0.90, "VAE/GAN": 0.95}


def main() -> None:
    """Run a study and write what its report says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("data_root", nargs="?", default="../shared/data", type=Path)
    parser.add_argument("--folder", type=Path, help="keep the study here")
    parser.add_argument("--jobs", default="1", help="runs at a time")
    parser.add_argument("--threads", default="1", help="CPU threads of each run")
    parser.add_argument("--report", type=Path, help="publish this report.json, and train nothing")
    parser.add_argument("--out", type=Path, help="instead of results/lecture_study_NAME.json")
    options = parser.parse_args()
    out = options.out or RESULTS / f"lecture_study_{options.study}.json"
    load_before = os.getloadavg()
    report = json.loads(options.report.read_text()) if options.report else study(options)
    result = summary(report) | machine(load_before)
    result["command"] = shlex.join(["python", "tests/bench/lecture_study.py", *sys.argv[1:]])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    for claim in result["claims"]:
        print(f"{claim['verdict']}: {claim['text']}")
    print(json.dumps(result["met"]), f"written to {out.resolve()}", sep="\n")


def study(options: argparse.Namespace) -> dict[str, Any]:
    """Run the study, and return its report."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch, "study")).resolve()
        words = ["study", *STUDIES[options.study], "--seeds", "3", "--jobs", options.jobs]
        words += ["--threads", options.threads, "--out", str(folder)]
        if options.study == "cifar10":
            with tarfile.open(options.data_root / "cifar10-train.tar") as tar:
                tar.extractall(scratch, filter="data")
        else:
            words += ["--data-root", str(options.data_root.resolve())]
        subprocess.run([sys.executable, "-m", "convvae_trainer", *words], check=True, cwd=scratch)
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a report that is published: figures over seeds, and claims with their verdicts."""
    systems = {system["name"]: system["figures"] for system in report["systems"]}
    claims = [
        {
            "text": claim["text"],
            "verdict": claim["verdict"],
            "cases": [case["words"] for case in claim["cases"]],
        }
        for claim in report["claims"]
    ]
    read = {name: systems[name].get("accuracy") for name in LEAST_READ if name in systems}
    met = {
        f"{LEAST_READ[name]:.0%} of the reconstructions of {name} are read rightly": found["mean"]
        >= LEAST_READ[name]
        for name, found in read.items()
        if found is not None
    }
    return {
        "figure": "AE, VAE, VAE_Dis_l and VAE/GAN, matched, against the lecture's claims",
        "images": report["images"],
        "split": report["split"],
        "classifier": report["classifier"],
        "input_sharpness": report["models"][0]["input_sharpness"],
        "own_size": report["models"][0]["own_size"],
        "systems": systems,
        "claims": claims,
        "met": met,
        "report": {"command": report["command"], "date": report["date"]},
    }


def machine(load_before: tuple[float, float, float]) -> dict[str, Any]:
    """Return where and with what the study was made."""
    from convvae_trainer.runs.provenance import code_commit, hardware, library_versions

    return {
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "hardware": hardware(),
        "commit": code_commit(),
        "libraries": library_versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
