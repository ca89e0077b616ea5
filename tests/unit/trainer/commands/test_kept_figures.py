"""The figures that `evaluate` keeps in the run folder: those from most images or samples."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from convvae_trainer.commands.evaluate import run_evaluate
from convvae_trainer.commands.kept_figures import SUPPORT
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.evaluation.metrics import OPTIONAL_METRICS
from convvae_trainer.evaluation.options import EvalOptions
from convvae_trainer.runs.fit import Fitted


@pytest.fixture
def run_dir(fitted: tuple[Fitted, Dataset], tmp_path: Path) -> Path:
    """A copy of a run that has ended, with 8 test images."""
    return shutil.copytree(fitted[0].run.path, tmp_path / "run")


def evaluated(run_dir: Path, samples: int, images: int) -> tuple[dict[str, Any], str]:
    """Return the kept log-likelihood after an evaluation of this size, and the output."""
    screen = io.StringIO()
    run_evaluate(
        run_dir,
        device="cpu",
        options=EvalOptions(importance_samples=samples, limit_images=images),
        console=Console(file=screen, width=200),
    )
    kept = json.loads((run_dir / "evaluation.json").read_text())["log_likelihood"]
    return kept, screen.getvalue()


def test_a_quick_look_does_not_replace_a_long_evaluation(run_dir: Path) -> None:
    """An estimate from fewer images or samples is not kept, and a line says so. Any other one is kept."""
    first, said = evaluated(run_dir, 4, 6)
    assert "not kept" not in said
    line = "log likelihood not kept: the run folder has one from 6 images, 4 samples\n"
    for samples, images in ((50, 5), (3, 6)):
        kept, said = evaluated(run_dir, samples, images)
        assert kept == first
        assert said.endswith(line)
    for samples, images in ((4, 6), (5, 6), (1, 8)):
        kept, said = evaluated(run_dir, samples, images)
        assert (kept["samples"], kept["images"]) == (samples, images)
        assert "not kept" not in said


def test_a_damaged_figure_is_replaced(run_dir: Path) -> None:
    """Any new figure replaces a damaged one."""
    path = run_dir / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"log_likelihood": 7}))
    assert evaluated(run_dir, 2, 2)[0]["samples"] == 2


def test_every_further_figure_says_what_it_rests_on() -> None:
    """The table of counts has every optional metric."""
    assert set(SUPPORT) == set(OPTIONAL_METRICS)
