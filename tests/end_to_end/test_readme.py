"""The README is run, not believed."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "bench" / "results"
README = (ROOT / "README.md").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_the_blocks_run_in_order(tmp_path: Path) -> None:
    """Every shell and Python block works as printed, one after the other, in an empty folder."""
    blocks = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 5
    target = f"127.0.0.1:{free_port()}"
    script = ["set -euo pipefail", "trap 'kill $(jobs -p)' EXIT"]
    for index, (language, text) in enumerate(blocks):
        if language == "python":
            (tmp_path / f"block{index}.py").write_text(text.replace("localhost:50051", target))
            script.append(f"{sys.executable} block{index}.py")
        else:
            script.append(text)
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CONVVAE_SERVE_ADDRESS": target,
        "CONVVAE_SERVE_METRICS_ADDRESS": "off",
        "CONVVAE_TARGET": target,
    }
    command = ["bash", "-c", "\n".join(script)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "samples.png").stat().st_size > 0
    assert (tmp_path / "embeddings.parquet").stat().st_size > 0


def test_links_and_targets_exist() -> None:
    """Every relative link leads to a file, and every make target is one."""
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_the_first_screen_says_what_it_is() -> None:
    """One sentence, the arrow, the two commands and the results stand within 32 lines."""
    first = README.splitlines()[:32]
    assert any("--trainer-->" in line for line in first)
    assert any(line.strip().startswith("make demo") for line in first)
    assert any(line.strip().startswith("make test") for line in first)
    assert sum(line.startswith("|") for line in first) >= 4


def gpu_figures(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the figures of the GPU, and of the CPU beside it that has bf16."""
    short, long = results["mnist_likelihood_cuda_36s"], results["mnist_likelihood_cuda"]
    cpu, cuda = results["training_throughput_bf16"], results["training_throughput_cuda"]
    ratios = ("ratio_fp32", "ratio_auto", "ratio_auto_compiled")
    return [
        f"after {short['until']['training_seconds']:.0f} s and",
        f"after {long['training_seconds']:.0f} s of training",
        f"by {short['until']['samples']} and {long['importance_samples']:,} samples",
        f"{short['until']['looks'][-1]['nats']:.2f}, {long['negative_log_likelihood_nats']:.2f} nats",
        ", ".join(f"{cpu[name]:.2f}" for name in ratios) + " times",
        f"(without bf16: {results['training_throughput']['ratio_fp32']:.2f})",
        ", ".join(f"{cuda[name]:.1f}" for name in ratios) + " times",
    ]


def test_the_figures_are_those_that_were_measured() -> None:
    """The results table quotes the result files, no more favourable than they are."""
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    elbo, demo = results["mnist_elbo"], results["demo_time"]
    likelihood = results["mnist_likelihood"]
    start_up, embed = results["start_up"], results["embed_throughput"]
    parity = elbo["parity"]
    demo_metrics = demo["training_metrics"]
    # Results of before the metrics carried their unit have the shorter name.
    demo_elbo = demo_metrics.get("test_elbo_nats", demo_metrics.get("test_elbo"))
    quoted = [
        f"{elbo['test_elbo_nats']:.2f} nats",
        f"{likelihood['importance_samples']} importance samples",
        f"{likelihood['negative_elbo_nats']:.2f}, {likelihood['negative_log_likelihood_nats']:.2f} nats",
        f"{demo_elbo:.2f} nats per image",
        f"{demo['demo_s']:.0f} s, of which {demo['training_s']:.0f} s training",
        f"{max(parity['mean'], parity['log_variance']):.0e} on mean and log-variance",
        f"{parity['image_steps']} steps of 255",
        f"{start_up['median_s']:.2f} s",
        f"{embed['cpu_ratio']:.2f} times",
        *gpu_figures(results),
    ]
    first = "\n".join(README.splitlines()[:32])
    assert [figure for figure in quoted if figure not in first] == []
