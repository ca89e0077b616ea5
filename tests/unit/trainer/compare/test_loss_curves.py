"""Loss curves from the metrics in a bundle."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from convvae_service.bundle import METRICS_FILE
from convvae_trainer.compare.bundle_model import open_model
from convvae_trainer.compare.pictures import loss_curve
from convvae_trainer.compare.published import find_versions
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.runs.fit import Fitted


def test_curves_are_the_runs_epochs(
    published_pair: tuple[Path, Dataset], fitted: tuple[Fitted, Dataset], tmp_path: Path
) -> None:
    """The run's metrics travel with the bundle; a damaged line ends them, an absent file is no curve."""
    expected = [line for line in fitted[0].run.read_metrics() if line["kind"] == "epoch"]
    shutil.copytree(published_pair[0] / "blobs", tmp_path / "blobs")
    model = open_model(find_versions([str(tmp_path / "blobs")])[0])
    assert len(expected) == 4
    assert model.loss_curves() == expected
    path = tmp_path / "blobs" / "1" / METRICS_FILE
    text = path.read_text()
    path.write_text(text[: text.rindex('"kind"')])
    assert model.loss_curves() == expected[:3]
    path.write_bytes(b"\xff\xfe")
    assert model.loss_curves() == []
    path.unlink()
    assert model.loss_curves() == []


def test_a_curve_has_gaps_where_the_metrics_have_none() -> None:
    """A game that is over has no loss, which metrics say by null; a loss of 0 is a loss."""
    lines = [
        {"epoch": 1, "adversarial": 0.0, "discrimination": 0.0},
        {"epoch": 2, "adversarial": None, "discrimination": None, "elbo": -3.0, "validation_elbo": -4.0},
    ]
    first = SimpleNamespace(bundle=SimpleNamespace(loss_curves=lambda: lines))
    fake: Any = SimpleNamespace(name="d", first=first)
    curve = loss_curve(fake)
    assert curve is not None
    assert curve.values["adversarial"] == [0.0, None]
    assert curve.values["discrimination"] == [0.0, None]
    assert curve.values["loss"] == [None, 3.0]
    assert curve.values["validation_loss"] == [None, 4.0]
    assert curve.values["validation_rate"] == [None, None]
