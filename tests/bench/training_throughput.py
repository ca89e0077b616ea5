"""Measure training against pythae, and write results/training_throughput.json, of a GPU ..._cuda.json.

    python tests/bench/training_throughput.py [DATA_ROOT] [--rounds 5] [--device cpu]

Both train a VAE with a Bernoulli likelihood on grey MNIST images, in batches of 100, on as many CPU
threads, or with --device cuda on the first GPU. Each row is a process that waits for its turn; in every
round each row takes one epoch of the same images, one row after the other. The figure is images per second
within the epoch, the median over the rounds.

- `plain`: our default networks. pythae gets the very same modules behind its own encoder and decoder classes.
- `pythae`: pythae's convolutional networks for MNIST. Our loop gets the very same modules.

pythae trains through its own BaseTrainer and DataLoader, with its defaults. Timed is its loop from the first
batch's loading to the last step; its start-up, its copy of the best weights and its saving are not. Ours is
`convvae_trainer.runs.loop`, timed by its own clock, with all that it does between two steps: averaged
weights, clipping, metrics, but without TensorBoard's files, which pythae does not write. Both show a progress
bar that nobody sees. Every row has a warm-up of 5 batches that is not counted: compiling falls in it,
and the recording of CUDA graphs. `warm_up_s` is its length. On a GPU we compute float32 as such, while pythae
has torch's default, which rounds what convolutions multiply (TF32).

pythae is installed into .bench/pythae-venv, without its dependencies but two; torch and all else are the
project's own, by way of a .pth file. DATA_ROOT holds `MNIST/raw` (default ../shared/data).
"""

import argparse
import contextlib
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from convvae_trainer.compute.device import gpu_name, pick_device
from convvae_trainer.runs.provenance import code_commit, hardware, library_versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = {
    "cpu": Path(__file__).parent / "results" / "training_throughput.json",
    "cuda": Path(__file__).parent / "results" / "training_throughput_cuda.json",
}
ENVIRONMENT = ROOT / ".bench" / "pythae-venv"
PACKAGES = {"pythae": "0.1.2", "tqdm": "4.70.1", "imageio": "2.38.1"}
TARGET_RATIOS = {"cpu": 1.4, "cuda": 10.0}
# For a round of each network.
IMAGES = {"cpu": {"plain": 12000, "pythae": 600}, "cuda": {"plain": 60000, "pythae": 12000}}
ROWS = {
    "plain": {
        "pythae_fp32": ["--trainer", "pythae"],
        "ours_fp32": ["--trainer", "ours"],
        "ours_auto": ["--trainer", "ours", "--precision", "auto"],
        "ours_auto_compiled": ["--trainer", "ours", "--precision", "auto", "--compile"],
    },
    "pythae": {
        "pythae_fp32": ["--trainer", "pythae"],
        "ours_fp32": ["--trainer", "ours"],
        "ours_auto": ["--trainer", "ours", "--precision", "auto"],
    },
}


class Row:
    """One process that trains when it is told to."""

    def __init__(self, words: list[str], log: IO[str]) -> None:
        self.log = log
        program = [ENVIRONMENT / "bin" / "python", Path(__file__).with_name("training_row.py")]
        self.command = [*map(str, program), *words]
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self.facts = self._answer()
        self.rounds: list[float] = []

    def measure(self) -> None:
        """Have it train once more."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.rounds.append(self._answer()["images_per_s"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            sys.exit(f"{shlex.join(self.command)} ended early:\n{self.log.read()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.communicate()

    def summary(self) -> dict[str, Any]:
        """Return its figures."""
        return {"images_per_s": statistics.median(self.rounds), "rounds": self.rounds, **self.facts}


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, help="a round of the plain networks")
    parser.add_argument("--pythae-images", type=int, help="a round of pythae's networks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pick_device(options.device)
    make_environment()
    asked = {"plain": options.images, "pythae": options.pythae_images}
    images = {network: asked[network] or count for network, count in IMAGES[options.device].items()}
    out = options.out or RESULTS[options.device]
    load_before = os.getloadavg()
    networks = {
        network: measure(
            network,
            images[network],
            options.data_root,
            rounds=options.rounds,
            threads=options.threads,
            device=options.device,
        )
        for network in ROWS
    }
    result = {
        "figure": "images per second of training, MNIST 28x28x1, batch 100, ours against pythae",
        "ratio_auto": networks["plain"]["ratios"]["ours_auto"],
        "ratio_auto_compiled": networks["plain"]["ratios"]["ours_auto_compiled"],
        "target_ratio": TARGET_RATIOS[options.device],
        "ratio_fp32": networks["plain"]["ratios"]["ours_fp32"],
        "networks": networks,
        "device": options.device,
        "threads": options.threads,
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "hardware": ", ".join(filter(None, (hardware(), gpu_name(pick_device(options.device))))),
        "libraries": {**library_versions(), **PACKAGES},
        "pythae_environment": "pythae, tqdm and imageio in a venv of their own, all else the project's own",
        "command": shlex.join(["python", "tests/bench/training_throughput.py", *sys.argv[1:]]),
        "commit": code_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"ratio to pythae (target {result['target_ratio']}): {result['ratio_auto']} in the chosen precision,"
    )
    print(f"{result['ratio_auto_compiled']} compiled in that, {result['ratio_fp32']} in fp32")
    print(f"written to {out.resolve()}")


def measure(
    network: str, images: int, data_root: Path, *, rounds: int, threads: int, device: str
) -> dict[str, Any]:
    """Return the figures of all rows of a network."""
    common = [str(data_root), "--network", network, "--images", str(images), "--threads", str(threads)]
    common += ["--device", device]
    with contextlib.ExitStack() as stack:
        rows = {name: stack.enter_context(row([*common, *words])) for name, words in ROWS[network].items()}
        for number in range(rounds):
            for name, each in rows.items():
                each.measure()
                print(f"{network} {name} round {number + 1}: {each.rounds[-1]:,.0f} images/s", flush=True)
    found = {name: each.summary() for name, each in rows.items()}
    (parameters,) = {each.pop("parameters") for each in found.values()}
    base = found["pythae_fp32"]["images_per_s"]
    return {
        "parameters": parameters,
        "images_a_round": images,
        "rows": found,
        "ratios": {
            name: round(each["images_per_s"] / base, 3)
            for name, each in found.items()
            if name != "pythae_fp32"
        },
    }


@contextlib.contextmanager
def row(words: list[str]) -> Iterator[Row]:
    """Start a row's process, and end it."""
    with tempfile.TemporaryFile("w+") as log:
        made = Row(words, log)
        try:
            yield made
        finally:
            made.close()


def make_environment() -> None:
    """Make the environment that has pythae, unless it is there."""
    packages = [f"{name}=={version}" for name, version in PACKAGES.items()]
    # A line of a .pth file that begins with `import` is run: so the project's own .pth files count as well.
    link = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    stamp, wanted = ENVIRONMENT / "installed", "\n".join([*packages, link])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing {' '.join(packages)} into {ENVIRONMENT} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    python = str(ENVIRONMENT / "bin" / "python")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(subprocess.check_output([python, "-c", where], text=True).strip())
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([python, *install, *packages], check=True)
    (site_packages / "project.pth").write_text(link)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
