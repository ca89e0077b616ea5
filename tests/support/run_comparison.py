"""Two training runs compared: their checkpoints and their metrics."""

import json
from pathlib import Path
from typing import Any

import torch

from convvae_trainer.runs.checkpoint import read_checkpoint

# The processes add up a batch in another order than one does: relative to the largest of each tensor.
TOLERANCE = 2e-3


def final(run_dir: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run_dir / "checkpoint.safetensors")[0]


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "elapsed_s"} for line in lines]


def assert_same(first: Path, second: Path) -> None:
    one, other = final(first), final(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert metrics(first) == metrics(second)


def assert_near(first: Path, second: Path) -> None:
    """Compare two checkpoints: what was drawn bit by bit, what was computed within the tolerance."""
    (one, state), (other, other_state) = (
        read_checkpoint(path / "checkpoint.safetensors") for path in (first, second)
    )
    assert one.keys() == other.keys()
    assert torch.equal(one["generator"], other["generator"])
    assert state["progress"]["step"] == other_state["progress"]["step"]
    for name, value in one.items():
        scale = max(1e-3, float(value.abs().max()))
        assert (value.double() - other[name].double()).abs().max() <= TOLERANCE * scale, name
