"""docs/measurements.md agrees with the result files, with the programs, and with `make bench`."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "bench" / "results"


def test_the_document_and_the_makefile_agree() -> None:
    """Every program that `make bench` leaves out is named beside it, and every program is in the table."""
    text = (ROOT / "docs" / "measurements.md").read_text()
    made = re.search(r"^FIGURES \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    left_out = re.search(r"^    make bench +# all but (.*)$", text, re.MULTILINE)
    assert made is not None
    assert left_out is not None
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    named = left_out[1].replace(" and ", ", ").split(", ")
    assert sorted([*made[1].split(), *named]) == sorted(listed)
    for name in listed:
        assert (ROOT / "tests" / "bench" / f"{name}.py").is_file()
    for name in named:
        assert f"make bench FIGURES={name} " in text


def gpu_figures(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the figures of the GPU, and of the CPU with bf16 beside it."""
    short, long = results["mnist_likelihood_cuda_36s"], results["mnist_likelihood_cuda"]
    cpu, cuda = results["training_throughput_bf16"], results["training_throughput_cuda"]
    ratios = ("ratio_fp32", "ratio_auto", "ratio_auto_compiled")
    return [
        f"after {short['until']['training_seconds']:.0f} s and",
        f"after {long['training_seconds']:.0f} s of training",
        f"by {short['until']['samples']} and {long['importance_samples']:,} samples",
        f"{short['until']['looks'][-1]['nats']:.2f}, {long['negative_log_likelihood_nats']:.2f} nats",
        ", ".join(f"{cpu[name]:.2f}" for name in ratios) + " times",
        f"{results['training_throughput']['ratio_fp32']:.2f} times",
        ", ".join(f"{cuda[name]:.1f}" for name in ratios) + " times",
    ]


def int8_figures(measured: dict[str, Any]) -> list[str]:
    """Return the speed of int8 graphs, and the accuracy of the trained models in int8."""
    ratios = [measured["reference_64x64x3"][role]["ratio"] for role in ("encoder", "decoder")]
    trained = [
        f"{one['accuracy']['cosine_mean']:.4f}, {one['accuracy']['psnr_loss_db']:.2f} dB"
        for one in measured["trained"]
    ]
    return [", ".join(f"{ratio:.2f}" for ratio in ratios) + " times", " and ".join(trained)]


def fault_figures(folder: Path) -> list[str]:
    """Return the figures of the runs with faults and load by one front, which is the folder's name."""
    results = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    rolling, overload = results["rolling"], results["overload"]
    health_ms = overload["health_ms"]["p99"]
    proxied = results["proxied"]
    assert all(
        proxied[proxy][name]["calls"] >= 20_000
        for proxy in ("nginx", "haproxy")
        for name in ("sigterm", "sigkill")
    )
    behind = [
        [proxied[proxy][name]["lost"] for proxy in ("nginx", "haproxy")] for name in ("sigterm", "sigkill")
    ]
    growth = "growth_of_the_second_half_kib"
    kib = [results[name][growth] for name in ("cancel_storm", "mutations")]
    return [
        f"lost of {rolling['sigterm']['calls']:,}",
        f"{folder.name} {rolling['sigterm']['lost']}, {rolling['sigkill']['lost']}",
        f"{folder.name} {', '.join(str(sum(lost)) for lost in behind)}",
        f"{folder.name} {overload['accepted_ms']['p99_ratio']:.1f} times, {health_ms:.0f} ms",
        f"{folder.name} {', '.join(f'{growth / 1024:.1f}' for growth in kib)} MiB",
    ]


def test_the_summary_is_what_was_measured() -> None:
    """The first table quotes the result files, no more favourable than they are."""
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    fronts = sorted((ROOT / "tests" / "fault" / "results").iterdir())
    elbo, demo = results["mnist_elbo"], results["demo_time"]
    likelihood, parity = results["mnist_likelihood"], results["mnist_elbo"]["parity"]
    quoted = [
        f"{elbo['test_elbo_nats']:.2f} nats",
        f"{likelihood['importance_samples']} importance samples",
        f"{likelihood['negative_elbo_nats']:.2f}, {likelihood['negative_log_likelihood_nats']:.2f} nats",
        f"{demo['demo_s']:.0f} s, of which {demo['training_s']:.0f} s training",
        f"{max(parity['mean'], parity['log_variance']):.0e} on mean and log-variance",
        f"{parity['image_steps']} steps of 255",
        f"{results['start_up']['median_s']:.2f} s",
        f"{results['embed_throughput']['cpu_ratio']:.2f} times",
        ", ".join(f"{results['open_model'][graph]['cpu_ratio']:.2f}" for graph in ("28x28x1", "64x64x3")),
        *int8_figures(results["quantized_graphs"]),
        *gpu_figures(results),
        *(figure for folder in fronts for figure in fault_figures(folder)),
    ]
    document = (ROOT / "docs" / "measurements.md").read_text()
    summary = document.partition("## Summary")[2].partition("## Make them")[0]
    assert [figure for figure in quoted if figure not in summary] == []


def shown(settings: dict[str, Any]) -> str:
    """Return the data of a group of runs as the table of learning rates names them."""
    if settings["dataset"] == "digits":
        return "digits 16x16" if "image_size" in settings else "digits 32x32"
    return f"{settings['dataset']}, {settings['epochs']} epochs"


def test_the_table_of_learning_rates_is_what_was_measured() -> None:
    """Each run of the result has its row in the page on objectives, and no row is without a run."""
    names = {"vae": "VAE", "vae-disl": "VAE_Dis_l", "vae-gan": "VAE/GAN"}
    measured = json.loads((RESULTS / "learning_rates.json").read_text())
    expected = [
        f"| {shown(group['settings'])} | {names[run['objective']]} | {run['learning_rate']:g} |"
        f" {run['classified']:.0%} | {run['ssim']:.2f} | {run['sharpness_ratio']:.2f} |"
        f" {run['frechet_reconstructions']:.1f} | {run['frechet_samples']:.0f} |"
        for group in measured["groups"]
        for run in group["runs"]
    ]
    text = (ROOT / "docs" / "training" / "objectives.md").read_text()
    assert re.findall(r"^\| (?:digits|mnist)[ ,].*$", text, re.MULTILINE) == expected


def test_what_to_expect_of_the_colour_presets_is_what_was_measured() -> None:
    """The page on settings quotes the processor time, PSNR and SSIM of both presets."""
    presets = json.loads((RESULTS / "colour_presets.json").read_text())["presets"]
    small, large = presets["colour32"], presets["colour64"]
    text = " ".join((ROOT / "docs" / "training" / "settings.md").read_text().split())
    assert f"took {small['cpu_s']:.0f} s and {large['cpu_s']:.0f} s of processor time" in text
    assert f"was {small['psnr_db']:.1f} dB and {large['psnr_db']:.1f} dB" in text
    assert f"SSIM {small['ssim']:.2f} and {large['ssim']:.2f}" in text
