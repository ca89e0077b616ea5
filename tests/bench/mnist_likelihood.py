"""Train an hour on binarised MNIST and write test ELBO and log-likelihood to results/mnist_likelihood.json.

Of a GPU they go to results/mnist_likelihood_cuda.json.

    python tests/bench/mnist_likelihood.py [DATA_ROOT] [--minutes 58] [--importance-samples 5000]
                                           [--limit-images N] [--run-dir DIR] [--device cpu]
                                           [--until-nats 84.45 [--look-every-s 60] [--look-samples 100]]

Protocol: the first 50,000 training images, re-binarised in every pass; the 10,000 test images binarised once
with a fixed seed; latent 40, Bernoulli. The ELBO has one posterior draw for each test image. The
log-likelihood is importance-weighted, of all test images, for which 50 million images are decoded, or of the
first N.

With --run-dir the run is kept there, and one that is there already is evaluated instead of trained. Ctrl-C
ends the stage that runs, and the next goes on: `cut_short` in the result says whatever was cut short.
DATA_ROOT holds `MNIST/raw` as torchvision lays it out (default ../shared/data).

With --until-nats training ends where the bound on -log p(x) of the test images, of --look-samples draws, is
so low, and the result has the seconds of training until then. Training is stopped for each look, at the first
line of metrics after --look-every-s seconds of training, and resumed after it: looks do not count.
"""

import argparse
import contextlib
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from convvae_trainer.compute.device import gpu_name, pick_device
from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.provenance import code_commit, hardware, library_versions
from convvae_trainer.settings.assembly import config_from, to_json_object

RESULTS = Path(__file__).parent / "results"
PROTOCOL = {
    "dataset": "mnist",
    "train_images": 50000,
    "validation_share": 0.0,
    "binarize": "dynamic",
    "likelihood": "bernoulli",
    "latent_dim": 40,
    "width": 24,
    "last_side": 4,
    "blocks": 1,
    "hidden": 256,
    "weight_decay": 0.05,
    "kl_warmup_epochs": 5.0,
    "ema_decay": 0.9995,
    "seed": 0,
    "device": "cpu",
}
POLL_S = 0.5
MINUTES, SAMPLES, TEST_IMAGES = 58.0, 5000, 10000
# The greatest -ELBO and -log p(x), in nats per image.
TARGETS = {
    "cpu": {"negative_elbo_nats": 86.0, "negative_log_likelihood_nats": 83.5},
    "cuda": {"negative_log_likelihood_nats": 81.4},
}


def main() -> None:
    """Run the protocol and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--importance-samples", type=int, default=SAMPLES)
    parser.add_argument("--limit-images", type=int)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--device", default="cpu", help="as of convvae-train")
    parser.add_argument("--until-nats", type=float)
    parser.add_argument("--look-every-s", type=float, default=60.0)
    parser.add_argument("--look-samples", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    kind = pick_device(options.device).type
    out = options.out or RESULTS / (
        "mnist_likelihood.json" if kind == "cpu" else "mnist_likelihood_cuda.json"
    )
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        run_dir = options.run_dir or Path(folder, "run")
        limit = [] if options.limit_images is None else ["--limit-images", str(options.limit_images)]
        # Where and on what each evaluation is.
        place = (run_dir, options.data_root, options.device)
        first = [
            *fit_arguments(options.data_root, options.minutes, options.device),
            "--run-dir",
            str(run_dir),
        ]
        until = None
        if options.until_nats is not None:
            looked = ["--importance-samples", str(options.look_samples), *limit]
            until = train_until(
                options.until_nats,
                first,
                run_dir,
                every_s=options.look_every_s,
                look=lambda: evaluate(*place, *looked)[0],
            )
        elif not (run_dir / "run.json").exists():
            trainer(*first)
        asked = ["--importance-samples", str(options.importance_samples), *limit]
        evaluation, seconds = evaluate(*place, *asked)
        if evaluation is None:
            evaluation, _ = evaluate(*place)
        if evaluation is None:
            sys.exit("both evaluations were stopped: there is nothing to write")
        result = read_result(run_dir, evaluation, options.device)
    result |= {
        **({} if until is None else {"until": until}),
        "evaluation_device": options.device,
        "evaluation_seconds": round(seconds, 1),
        "evaluation_command": shlex.join(["convvae-train", "evaluate", "RUN_DIR", *asked]),
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "command": shlex.join(["python", "tests/bench/mnist_likelihood.py", *sys.argv[1:]]),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    for name, target in TARGETS[kind].items():
        print(f"{name.replace('_', ' ')}: {result[name]} (target {target} or less)")
    print(*result["cut_short"], sep="\n")
    print(f"written to {out.resolve()}")


def fit_arguments(data_root: str, minutes: float, device: str) -> list[str]:
    """Return the arguments of `convvae-train` that are the protocol, on a device."""
    words = ["fit", "--data-root", data_root, "--minutes", f"{minutes:g}"]
    for name, value in {**PROTOCOL, "device": device}.items():
        words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def train_until(
    nats: float,
    first: list[str],
    run_dir: Path,
    *,
    every_s: float,
    look: Callable[[], dict[str, Any] | None],
) -> dict[str, Any]:
    """Train until the bound on -log p(x) is `nats` or less, or to the end, and return what each look saw.

    Args:
        nats: Of an image.
        first: The arguments that start the run; one that is in `run_dir` already goes on.
        run_dir: The run's folder.
        every_s: Seconds of training between two looks.
        look: Evaluates the run's checkpoint; None if that was stopped.
    """
    looks: list[dict[str, float]] = []
    result: dict[str, Any] = {"nats": nats, "training_seconds": None, "looks": looks}
    trained_s, is_over = 0.0, False
    while not is_over:
        words = ["fit", "--resume", "--run-dir", str(run_dir)] if (run_dir / "run.json").exists() else first
        is_over = train_for(words, run_dir, until_s=trained_s + every_s)
        trained_s = trained_seconds(run_dir)
        found = look()
        if found is None:
            break
        bound = -found["log_likelihood"]["nats"]
        result |= {name: found["log_likelihood"][name] for name in ("samples", "images")}
        looks.append({"training_seconds": round(trained_s, 1), "nats": bound})
        print(f"after {trained_s:.1f} s of training: {bound:.2f} nats", flush=True)
        if bound <= nats:
            result["training_seconds"] = round(trained_s, 1)
            break
    return result


def train_for(words: list[str], run_dir: Path, *, until_s: float) -> bool:
    """Train until the metrics have a line of so many seconds, then stop; return whether the run ended.

    Ctrl-C ends it too.
    """
    command = [sys.executable, "-m", "convvae_trainer", *words]
    is_asked = False
    with child_interrupted(), subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(POLL_S)
            if not is_asked and (run_dir / "run.json").exists():
                lines = RunFolder.open(run_dir).read_metrics()
                if lines and lines[-1]["elapsed_s"] >= until_s:
                    process.send_signal(signal.SIGTERM)
                    is_asked = True
    if is_asked and process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return False
    if process.returncode not in (0, -signal.SIGINT, 128 + signal.SIGINT):
        sys.exit(f"convvae-train {shlex.join(words)} failed")
    return True


def trained_seconds(run_dir: Path) -> float:
    """Return the seconds of training that the run's checkpoint has."""
    _, state = read_checkpoint(RunFolder.open(run_dir).checkpoint)
    return float(state["progress"]["elapsed_s"])


def evaluate(run_dir: Path, data_root: str, device: str, *asked: str) -> tuple[dict[str, Any] | None, float]:
    """Return the figures of `convvae-train evaluate`, None if it was cut short, and its seconds."""
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "evaluation.json")
        where = ["--data-root", data_root, "--device", device, "--out", str(out)]
        trainer("evaluate", str(run_dir), *where, *asked)
        values = json.loads(out.read_text()) if out.exists() else None
    return values, time.perf_counter() - began_s


def trainer(*words: str) -> None:
    """Run `convvae-train`; SIGINT and SIGTERM end it alone, anything else that ends it early ends all."""
    with child_interrupted():
        done = subprocess.run([sys.executable, "-m", "convvae_trainer", *words], check=False)
    stopped = {code for number in (signal.SIGINT, signal.SIGTERM) for code in (-number, 128 + number)}
    if done.returncode and done.returncode not in stopped:
        sys.exit(f"convvae-train {shlex.join(words)} failed")


@contextlib.contextmanager
def child_interrupted() -> Iterator[None]:
    """Leave Ctrl-C to the child process, which gets it from the terminal too."""
    # A handler and not SIG_IGN, which the child would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def read_result(run_dir: Path, evaluation: dict[str, Any], device: str) -> dict[str, Any]:
    """Return the figures of the run in `run_dir` and of its evaluation on `device`."""
    run = RunFolder.open(run_dir)
    _, state = read_checkpoint(run.checkpoint)
    progress, settings, start = state["progress"], to_json_object(run.config), run.record.segments[0]
    steps_per_epoch = run.record.data.train_images // run.config.batch_size
    found = evaluation["log_likelihood"]
    return {
        "figure": "-ELBO and importance-weighted -log p(x) on binarised MNIST, nats per image",
        "negative_elbo_nats": -evaluation["elbo"],
        "negative_log_likelihood_nats": None if found is None else -found["nats"],
        "targets": TARGETS[pick_device(device).type],
        "standard_error_nats": None if found is None else found["standard_error"],
        "importance_samples": None if found is None else found["samples"],
        "likelihood_images": None if found is None else found["images"],
        "cut_short": cut_short(settings["minutes"], progress["elapsed_s"], found),
        "other_than_protocol": {
            name: settings[name]
            for name, value in to_json_object(config_from(PROTOCOL, {"minutes": MINUTES})).items()
            if name != "data_root" and settings[name] != value
        },
        "distortion_nats": evaluation["distortion"],
        "rate_nats": evaluation["rate"],
        "active_units": evaluation["active_units"],
        "latent_dim": evaluation["latent_dim"],
        "test_images": evaluation["images"],
        "train_images": run.record.data.train_images,
        "binarize_seed": evaluation["binarize_seed"],
        "posterior_seed": evaluation["seed"],
        "training_seconds": round(progress["elapsed_s"], 1),
        "epochs": round(progress["step"] / steps_per_epoch, 2),
        "precision": run.record.precision,
        "computation_reason": run.record.reason,
        "threads": run.record.threads,
        "training_device": start.device,
        "training_hardware": start.hardware,
        "training_date": start.date,
        "training_commit": start.commit,
        "training_libraries": start.libraries,
        "trainer_command": run.record.command.replace(str(run_dir), "RUN_DIR"),
        "hardware": ", ".join(filter(None, (hardware(), gpu_name(pick_device(device))))),
        "commit": code_commit(),
        "libraries": library_versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def cut_short(minutes: float | None, elapsed_s: float, found: dict[str, Any] | None) -> list[str]:
    """Return what is less than the protocol has, in words."""
    words = []
    if minutes is not None and elapsed_s < 60 * minutes:
        words.append(f"training was stopped after {elapsed_s / 60:.1f} of {minutes:g} minutes")
    if minutes is None or minutes < MINUTES:
        words.append(f"the run was given {minutes or 'no'} minutes, the protocol has {MINUTES:g}")
    if found is None:
        return [*words, "the log-likelihood's evaluation was stopped: there is no figure"]
    if found["samples"] < SAMPLES:
        words.append(f"the log-likelihood has {found['samples']} of {SAMPLES} importance samples")
    if found["images"] < TEST_IMAGES:
        words.append(f"the log-likelihood is of the first {found['images']} of {TEST_IMAGES} test images")
    return words


if __name__ == "__main__":
    main()
