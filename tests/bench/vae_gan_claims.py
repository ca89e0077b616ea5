"""Hold VAE, VAE_Dis_l and VAE/GAN against the lecture's claims; write results/vae_gan_claims.json.

    python tests/bench/vae_gan_claims.py [DATA_ROOT] [--epochs 2] [--seeds 3] [--go-on]

On MNIST and CIFAR-10 each system is trained with the same encoder, decoder, latents, likelihood (Gaussian),
epochs and seeds. Of 2,000 test images: squared error and sharpness of the reconstructions of the posterior
means, and Fréchet distances of reconstructions and of as many prior samples, in the features of a classifier
of this data set. The data sets are worked on side by side, each on one thread; Ctrl-C ends both, and what is
done is written. With --go-on the seeds that the result file has are kept, and the others added: `measured`
says what computed which.

DATA_ROOT (default ../shared/data) holds `MNIST/raw` and `cifar10-train.tar`: 50,000 JPEG files by class, of
which a tenth are held out.
"""

import argparse
import collections
import contextlib
import datetime
import json
import multiprocessing
import os
import shlex
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = Path(__file__).parent / "results" / "vae_gan_claims.json"
IMAGES = 2000
SYSTEMS = ("vae", "vae-disl", "vae-gan")
COMMON = {
    "likelihood": "gaussian",
    "width": 16,
    "hidden": 256,
    "batch_size": 64,
    "precision": "auto",
    "threads": 1,
}
DISCRIMINATOR = {"discriminator_width": 16}
OWN: dict[str, dict[str, Any]] = {
    "vae": {},
    "vae-disl": {**DISCRIMINATOR, "gan_share": 0.4},
    "vae-gan": {**DISCRIMINATOR, "adversarial_weight": 1.0},
}
# What differs by data set, for all systems and for one of them. The penalty improves every figure of MNIST
# and makes those of CIFAR-10 worse in so short a run.
DATASETS: dict[str, dict[str, dict[str, Any]]] = {
    "mnist": {"all": {"latent_dim": 8}, "vae-gan": {"gradient_penalty": 0.5}},
    "cifar10": {"all": {"latent_dim": 64}},
}
FIGURES = (
    "classified",
    "ssim",
    "mse",
    "sharpness",
    "sharpness_distance",
    "frechet_reconstructions",
    "frechet_samples",
    "rate_nats",
    "elbo_nats",
    "training_cpu_s",
)


def main() -> None:
    """Train all systems and write the figures and what they say of the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--go-on", action="store_true", help="keep the seeds that the result file has")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    from convvae_trainer.runs.provenance import code_commit, hardware, library_versions

    load_before = os.getloadavg()
    kept = json.loads(options.out.read_text()) if options.go_on and options.out.exists() else {"data": {}}
    if kept["data"] and kept["epochs"] != options.epochs:
        sys.exit(
            f"{options.out} is of {kept['epochs']} epochs, not {options.epochs}: name another with --out"
        )
    with tempfile.TemporaryDirectory() as folder:
        works = [
            multiprocessing.get_context("spawn").Process(
                target=work,
                args=(name, options.data_root, folder, options.epochs, missing(kept, name, options.seeds)),
            )
            for name in DATASETS
        ]
        for process in works:
            process.start()
        with contextlib.suppress(KeyboardInterrupt):
            for process in works:
                process.join()
        for process in works:
            process.terminate()
            process.join()
        files = {name: Path(folder, f"{name}.json") for name in DATASETS}
        found = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    seeds = {name: sorted({run["seed"] for run in data["runs"]}) for name, data in found.items()}
    precisions = sorted({run["precision"] for data in found.values() for run in data["runs"]})
    for name, data in kept["data"].items():
        found.setdefault(name, {**data, "runs": []})
        found[name]["runs"] = [*data["runs"], *found[name]["runs"]]
    measured = {
        "seeds": seeds,
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "hardware": hardware(),
        "precision": precisions,
        "command": shlex.join(["python", "tests/bench/vae_gan_claims.py", *sys.argv[1:]]),
        "commit": code_commit(),
        "libraries": library_versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    result = summary(found, options.epochs, options.seeds)
    result["measured"] = [*kept.get("measured", []), measured]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for name, data in result["data"].items():
        for claim, seeds in data["claims"].items():
            print(f"{name}: {claim}: holds in {sum(seeds)} of {len(seeds)} seeds")
    print(*result["cut_short"], f"written to {options.out.resolve()}", sep="\n")


def missing(kept: dict[str, Any], name: str, seeds: int) -> list[int]:
    """Return the seeds that are not kept of a data set."""
    done = {run["seed"] for run in kept["data"].get(name, {"runs": []})["runs"]}
    return [seed for seed in range(seeds) if seed not in done]


def summary(found: dict[str, dict[str, Any]], epochs: int, seeds: int) -> dict[str, Any]:
    """Return what all data sets came to; seeds that not all systems were trained with are left out."""
    cut_short = []
    for name, data in found.items():
        counts = collections.Counter(run["seed"] for run in data["runs"])
        data["runs"] = [run for run in data["runs"] if counts[run["seed"]] == len(SYSTEMS)]
        done = len({run["seed"] for run in data["runs"]})
        if done < seeds:
            cut_short.append(f"{name}: {done} of {seeds} seeds")
    return {
        "figure": "VAE, VAE_Dis_l and VAE/GAN against the lecture's claims, means over the seeds",
        "cut_short": cut_short,
        "data": {
            name: {**data, "claims": judge(data["runs"]), "means": means(data["runs"])}
            for name, data in found.items()
            if data["runs"]
        },
        "test_images": IMAGES,
        "epochs": epochs,
        "seeds": seeds,
        "settings": {"all": COMMON, **OWN, **DATASETS},
    }


def work(name: str, data_root: str, folder: str, epochs: int, seeds: list[int]) -> None:
    """Train and measure every system on one data set, and keep what is done in `folder`."""
    if not seeds:
        return
    from convvae_trainer.compute.process import configure_process
    from convvae_trainer.data.dataset import load_dataset
    from convvae_trainer.evaluation.classifier import train_classifier
    from convvae_trainer.settings.config import config_from

    configure_process(threads=1)
    base = {"data_root": data_root, "epochs": epochs, "device": "cpu", "tensorboard": False}
    base["validation_share"] = 0.0
    base |= {**COMMON, **DATASETS[name]["all"], "dataset": name}
    if name == "cifar10":
        with tarfile.open(Path(data_root) / "cifar10-train.tar") as tar:
            tar.extractall(folder, filter="data")
        base["dataset"] = f"{folder}/cifar10/train"
    data = load_dataset(config_from(base))
    assert data.train_labels is not None
    assert data.test_labels is not None
    classifier = train_classifier(data.train, data.train_labels)
    accuracy = classifier.accuracy(data.test, data.test_labels)
    runs: list[dict[str, Any]] = []
    done = {"classifier_accuracy": accuracy, "train_images": len(data.train), "runs": runs}
    for seed in seeds:
        for system in SYSTEMS:
            own = {**OWN[system], **DATASETS[name].get(system, {})}
            config = config_from(base, own, {"objective": system, "seed": seed})
            run_dir = Path(folder) / f"{name}-{system}-{seed}"
            runs.append({"system": system, "seed": seed, **measure(config, data, run_dir, classifier)})
            print(name, runs[-1], flush=True)
            Path(folder, f"{name}.json").write_text(json.dumps(done))


def measure(config: Any, data: Any, run_dir: Path, classifier: Any) -> dict[str, Any]:
    """Train one system and return its figures."""
    import numpy as np
    import torch

    from convvae_trainer.evaluation.frechet import frechet_distance
    from convvae_trainer.evaluation.image_quality import reconstruction_quality
    from convvae_trainer.exports.graphs import DecoderGraph, EncoderGraph
    from convvae_trainer.runs.fit import fit

    start = time.process_time()
    done = fit(config, data, run_dir)
    cpu_s = time.process_time() - start
    train_state = done.train_state
    images = np.ascontiguousarray(data.test[:IMAGES])
    prior_NZ = np.random.default_rng(0).standard_normal((len(images), config.latent_dim), dtype=np.float32)
    with torch.no_grad(), train_state.ema.swapped_in():
        decode = DecoderGraph(train_state.model, train_state.likelihood)
        mean_NZ = EncoderGraph(train_state.model)(torch.from_numpy(images))[0]
        rebuilt = decode(mean_NZ)[0].numpy()
        sampled = decode(torch.from_numpy(prior_NZ))[0].numpy()
    quality = reconstruction_quality(images, rebuilt)
    real = classifier.features(images)
    return {
        "classified": classifier.accuracy(rebuilt, data.test_labels[:IMAGES]),
        "ssim": quality.ssim,
        "mse": quality.mse,
        "sharpness": quality.sharpness,
        "input_sharpness": quality.input_sharpness,
        "sharpness_distance": quality.sharpness_distance,
        "frechet_reconstructions": frechet_distance(real, classifier.features(rebuilt)),
        "frechet_samples": frechet_distance(real, classifier.features(sampled)),
        "rate_nats": done.evaluation.bound.rate,
        "elbo_nats": done.evaluation.bound.elbo,
        "training_cpu_s": round(cpu_s, 1),
        "precision": done.run.record.precision,
    }


def judge(runs: list[dict[str, Any]]) -> dict[str, list[bool]]:
    """Return for each claim whether it holds, seed by seed."""
    by_seed: dict[int, dict[str, dict[str, Any]]] = {}
    for run in runs:
        by_seed.setdefault(run["seed"], {})[run["system"]] = run
    claims: dict[str, list[bool]] = {}
    for found in by_seed.values():
        vae, gan, disl = found["vae"], found["vae-gan"], found["vae-disl"]
        said = {
            "Fréchet distance of reconstructions: VAE/GAN below VAE": gan["frechet_reconstructions"]
            < vae["frechet_reconstructions"],
            "Fréchet distance of prior samples: VAE/GAN below VAE": gan["frechet_samples"]
            < vae["frechet_samples"],
            "squared error: VAE/GAN above VAE": gan["mse"] > vae["mse"],
            "sharpness: VAE/GAN nearer to the inputs' than VAE": gan["sharpness_distance"]
            < vae["sharpness_distance"],
            "sharpness: VAE_Dis_l nearer to the inputs' than VAE": disl["sharpness_distance"]
            < vae["sharpness_distance"],
        }
        for claim, holds in said.items():
            claims.setdefault(claim, []).append(bool(holds))
    return claims


def means(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return each system's figures as means over the seeds."""
    return {
        system: {
            figure: statistics.fmean(run[figure] for run in runs if run["system"] == system)
            for figure in FIGURES
        }
        for system in SYSTEMS
    }


if __name__ == "__main__":
    main()
