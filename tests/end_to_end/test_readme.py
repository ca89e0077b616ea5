"""The README is run, not believed."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_the_blocks_run_in_order(tmp_path: Path) -> None:
    """Every shell and Python block works as printed, one after the other, in an empty folder."""
    blocks = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 4
    # The reader stops the server before the last block, which serves until it is stopped.
    blocks[-1] = (
        blocks[-1][0],
        blocks[-1][1].replace("convvae-serve", "kill $(jobs -p)\nwait || true\nconvvae-serve", 1),
    )
    blocks[-1] = (blocks[-1][0], blocks[-1][1].rstrip("\n") + " &\nconvvae health --wait 60\n")
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
    assert len(list((tmp_path / "samples").glob("*.png"))) == 16
    embedded = pq.read_table(tmp_path / "embeddings.parquet")
    assert embedded["id"].to_pylist() == sorted(path.name for path in (tmp_path / "samples").glob("*.png"))
    assert "16 rows, t-SNE of digits@1" in (tmp_path / "map.html").read_text()


def test_targets_and_extras_exist() -> None:
    """Every make target is one, and every extra to install is one of the package."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = re.findall(r"^    pip install '?\.(?:\[(.*?)\]')? +#", README, re.MULTILINE)
    assert len(lines) == 4
    named = {extra for line in lines for extra in line.split(",") if extra}
    assert named <= set(project["optional-dependencies"])


def test_the_first_screen_says_what_it_is() -> None:
    """One sentence, the arrow, the two commands, the picture and the installation stand within 24 lines."""
    first = README.splitlines()[:24]
    assert any("--trainer-->" in line for line in first)
    for command in ("make demo", "make test", "pip install ."):
        assert any(line.startswith(f"    {command} ") for line in first), command
    (picture,) = re.findall(r"!\[.+\]\((.+)\)", "\n".join(first))
    assert 1_000 < (ROOT / picture).stat().st_size < 150_000


def result(name: str) -> dict[str, Any]:
    """Return a result file of the measurements, given as `bench/NAME` or `fault/NAME`."""
    kind, _, stem = name.partition("/")
    content: dict[str, Any] = json.loads((ROOT / "tests" / kind / "results" / f"{stem}.json").read_text())
    return content


def test_the_figures_are_those_that_were_measured() -> None:
    """Each row of the table quotes its result file, with hardware and date."""
    likelihood, cpu = result("bench/mnist_likelihood"), result("bench/training_throughput")
    cuda, start_up, rolling = (
        result(name) for name in ("bench/training_throughput_cuda", "bench/start_up", "fault/grpcio/rolling")
    )
    assert cpu["date"][:10] == cuda["date"][:10]
    assert rolling["sigterm"]["lost"] == rolling["sigkill"]["lost"] == 0
    quoted = [
        (likelihood, f"by {likelihood['importance_samples']} importance samples"),
        (likelihood, f"{likelihood['negative_log_likelihood_nats']:.2f} nats"),
        (cpu, f"{cpu['ratio_fp32']:.2f} times, {cuda['ratio_fp32']:.1f} times"),
        (start_up, f"{start_up['median_s']:.2f} s"),
        (rolling, f"0 of {rolling['sigterm']['calls']:,}"),
    ]
    rows = [line for line in README.partition("## Figures")[2].splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    for content, figure in quoted:
        (row,) = [row for row in rows if figure in row]
        processor, cores = content["hardware"].split(", ")[:2]
        assert row.endswith(f"| {content['date'][:10]} |"), figure
        assert f"{cores} of an {processor}" in row, figure
