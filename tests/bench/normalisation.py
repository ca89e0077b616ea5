"""Measure what normalisation would do to encoder and decoder, and write results/normalisation.json.

    python tests/bench/normalisation.py [DATA_ROOT] [--images 8000] [--epochs 3] [--seeds 2] [--networks ...]

The product's networks have none. Here `batch` or `group` stands before every SiLU of maps, in the plain
networks (blocks 0) and the residual ones (blocks 1). For each of the six: the operators of the exported
graphs, and those left when ONNX Runtime has optimised them; its time for a row, in batches of 16 on one
thread; the time of a training step; and, for each seed, the test ELBO on binarised MNIST after a few epochs
of a part of the training images. Whatever is timed takes turns.

So short a run favours what learns fast at first: it cannot show where a long one ends. The last weights are
evaluated (ema_decay 0), to which the running statistics of batch normalisation belong. DATA_ROOT holds
`MNIST/raw` (default ../shared/data).
"""

import argparse
import collections
import datetime
import itertools
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from convvae_service.bundle import ImageShape, Role
from convvae_service.images.idx import open_idx
from convvae_trainer.compute.precision import choose_precision
from convvae_trainer.evaluation.metrics import evaluate
from convvae_trainer.exports.graphs import OPSET, DecoderGraph, EncoderGraph, to_onnx
from convvae_trainer.runs.progress import TrainProgress
from convvae_trainer.runs.provenance import code_commit, hardware, library_versions
from convvae_trainer.runs.training import train
from convvae_trainer.settings.config import Config
from convvae_trainer.step import train_state as train_state_module
from convvae_trainer.step.train_state import TrainState

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.normalised import make_networks
from support.training_parts import training_parts

RESULT = Path(__file__).parent / "results" / "normalisation.json"
RAW = "MNIST/raw"
NETWORKS = {"plain": 0, "residual": 1}
KINDS = ("none", "batch", "group")
CPU = torch.device("cpu")
BATCH_ROWS = 16
ROUNDS = 7
RUNS_A_ROUND = 40
STEPS_A_ROUND = 3
Images = NDArray[np.uint8]
Key = TypeVar("Key")


@dataclass(kw_only=True)
class Variant:
    """A network with a normalisation, what trained it last, and what was found."""

    network: str
    kind: str
    train_state: TrainState
    sessions: dict[str, Any]
    found: dict[str, Any]


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data_root", nargs="?", default="../shared/data", type=Path)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load_before = os.getloadavg()
    images_NHWC, test_NHWC = (
        np.array(open_idx(options.data_root / RAW / f"{part}-images-idx3-ubyte")[:count])[..., None]
        for part, count in (("train", options.images), ("t10k", options.test_images))
    )
    precision = choose_precision("auto", CPU).name
    variants = [
        make_variant(network, kind, images_NHWC, test_NHWC, precision, options.epochs, range(options.seeds))
        for network, kind in itertools.product(options.networks, KINDS)
    ]
    time_runtime(variants, test_NHWC)
    time_steps(variants, images_NHWC)
    result = {
        "figure": "no, batch and group normalisation in encoder and decoder, MNIST 28x28x1",
        "networks": {
            network: {each.kind: each.found for each in variants if each.network == network}
            for network in options.networks
        },
        "opset": OPSET,
        "runtime_batch_rows": BATCH_ROWS,
        "runtime_threads": 1,
        "train_images": options.images,
        "test_images": options.test_images,
        "epochs": options.epochs,
        "seeds": list(range(options.seeds)),
        "precision": precision,
        "threads": options.threads,
        "load_average_1_5_15_min": {"before": list(load_before), "after": list(os.getloadavg())},
        "hardware": hardware(),
        "libraries": library_versions(),
        "command": shlex.join(["python", "tests/bench/normalisation.py", *sys.argv[1:]]),
        "commit": code_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    print(f"written to {options.out.resolve()}")


def make_learner(
    network: str, kind: str, *, seed: int, epochs: int = 1, autocast: torch.dtype | None = None
) -> TrainState:
    """Return a train_state of the product's settings, but for the averaged weights."""
    config = Config(
        dataset="mnist",
        likelihood="bernoulli",
        binarize="dynamic",
        blocks=NETWORKS[network],
        ema_decay=0.0,
        epochs=epochs,
        seed=seed,
        device="cpu",
    )
    with mock.patch.object(train_state_module, "ConvVAE", make_networks(kind)):
        return TrainState(config, shape=(28, 28, 1), device=CPU, autocast=autocast)


def make_variant(
    network: str,
    kind: str,
    images_NHWC: Images,
    test_NHWC: Images,
    precision: str,
    epochs: int,
    seeds: Iterable[int],
) -> Variant:
    """Train with each seed, and export the last."""
    elbos = []
    for seed in seeds:
        train_state = make_learner(network, kind, seed=seed, epochs=epochs)
        train_state.autocast = torch.bfloat16 if precision == "bf16" else None
        with tempfile.TemporaryDirectory() as folder:
            quiet = Console(quiet=True)
            context, run = training_parts(train_state.config, images_NHWC, Path(folder), console=quiet)
            train(context, run, train_state, TrainProgress())
        train_state.model.eval()
        elbos.append(evaluate(train_state, test_NHWC, dataset="mnist", binarize="dynamic").bound.elbo)
        print(f"{network} {kind} seed {seed}: test ELBO {elbos[-1]:.2f}", flush=True)
    found: dict[str, Any] = {"test_elbo_nats": elbos, "operators": {}, "max_error": {}}
    variant = Variant(network=network, kind=kind, train_state=train_state, sessions={}, found=found)
    export(variant, test_NHWC)
    return variant


def export(variant: Variant, test_NHWC: Images) -> None:
    """Make both graphs and their sessions, count operators, and compare with PyTorch."""
    train_state = variant.train_state
    image_BHWC = test_NHWC[:BATCH_ROWS]
    modules: dict[Role, nn.Module] = {
        "encoder": EncoderGraph(train_state.model),
        "decoder": DecoderGraph(train_state.model, train_state.likelihood),
    }
    with torch.no_grad():
        mean_BZ = modules["encoder"](torch.from_numpy(image_BHWC))[0]
    inputs = {"encoder": torch.from_numpy(image_BHWC), "decoder": mean_BZ}
    for role, module in modules.items():
        data = to_onnx(
            module,
            role=role,
            image=ImageShape(height=28, width=28, channels=1),
            latent_dim=train_state.config.latent_dim,
            has_log_variance=True,
        )
        session, optimised = load(data)
        variant.sessions[role] = session
        variant.found["operators"][role] = {
            "exported": count_operators(onnx.load_from_string(data)),
            "optimised": count_operators(optimised),
        }
        with torch.no_grad():
            expected = [output.numpy() for output in module(inputs[role])]
        computed = session.run(None, {session.get_inputs()[0].name: inputs[role].numpy()})
        variant.found["max_error"][role] = max(
            float(np.abs(ours - theirs).max())
            for ours, theirs in zip(computed, expected, strict=True)
            if ours.dtype == np.float32
        )


def load(data: bytes) -> tuple[Any, onnx.ModelProto]:
    """Return a session on one thread, and the graph that ONNX Runtime made of the data."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # Optimisations that are of this processor's kind are in it too.
        options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return session, onnx.load(options.optimized_model_filepath)


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often each operator occurs."""
    return dict(sorted(collections.Counter(node.op_type for node in model.graph.node).items()))


def time_runtime(variants: list[Variant], test_NHWC: Images) -> None:
    """Time each graph in turns."""
    latent_dim = variants[0].train_state.config.latent_dim
    latent_BZ = np.random.default_rng(0).standard_normal((BATCH_ROWS, latent_dim), dtype=np.float32)
    feeds = {"encoder": {"image": test_NHWC[:BATCH_ROWS]}, "decoder": {"latent": latent_BZ}}
    works = {
        (number, role): repeat(variant.sessions[role].run, RUNS_A_ROUND, None, feeds[role])
        for number, variant in enumerate(variants)
        for role in feeds
    }
    for (number, role), seconds in rank0_first(works).items():
        microseconds = 1e6 * seconds / RUNS_A_ROUND / BATCH_ROWS
        variants[number].found[f"{role}_us_per_row"] = round(microseconds, 2)


def time_steps(variants: list[Variant], images_NHWC: Images) -> None:
    """Time training steps in turns; the weights are worthless afterwards."""
    batch_BCHW = as_tensor(images_NHWC[: variants[0].train_state.config.batch_size])
    for variant in variants:
        variant.train_state.model.train()

    def work(train_state: TrainState) -> Callable[[], None]:
        def steps() -> None:
            for _ in range(STEPS_A_ROUND):
                train_state.step(batch_BCHW, learning_rate=1e-6, beta=1.0)

        return steps

    times = rank0_first({number: work(variant.train_state) for number, variant in enumerate(variants)})
    for number, seconds in times.items():
        variants[number].found["step_ms"] = round(1e3 * seconds / STEPS_A_ROUND, 2)


def repeat(call: Callable[..., Any], times: int, *arguments: Any) -> Callable[[], None]:
    """Return what calls so many times."""

    def work() -> None:
        for _ in range(times):
            call(*arguments)

    return work


def rank0_first(works: dict[Key, Callable[[], None]]) -> dict[Key, float]:
    """Return the median seconds of each work, in turns; the first round is dropped."""
    seconds: dict[Key, list[float]] = {key: [] for key in works}
    for _ in range(ROUNDS + 1):
        for key, work in works.items():
            began_s = time.perf_counter()
            work()
            seconds[key].append(time.perf_counter() - began_s)
    return {key: statistics.median(each[1:]) for key, each in seconds.items()}


def as_tensor(images_NHWC: Images) -> Tensor:
    """Return uint8 NCHW."""
    return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).contiguous()


def table(result: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| networks | normalisation | operators | encoder µs | decoder µs | step ms | ELBO |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, kinds in result["networks"].items():
        for kind, found in kinds.items():
            exported, optimised = (
                sum(sum(stages[stage].values()) for stages in found["operators"].values())
                for stage in ("exported", "optimised")
            )
            elbos = ", ".join(f"{elbo:.1f}" for elbo in found["test_elbo_nats"])
            lines.append(
                f"| {network} | {kind} | {exported}, {optimised} | {found['encoder_us_per_row']:.1f}"
                f" | {found['decoder_us_per_row']:.1f} | {found['step_ms']:.0f} | {elbos} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
