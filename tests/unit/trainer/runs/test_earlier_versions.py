"""Runs of earlier versions: those that can go on as they were, and those that must not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadRun
from convvae_trainer.runs.fit import fit
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from support.commands import evaluated
from support.tiny_run import TINY

NEW_SETTINGS = ("test_dataset", "validation_dataset", "validation_share")


def make_earlier(run_dir: Path, **settings: Any) -> None:
    """Leave out of a run folder what earlier versions did not write."""
    config = json.loads((run_dir / "config.json").read_text())
    for name in NEW_SETTINGS:
        del config[name]
    (run_dir / "config.json").write_text(json.dumps({**config, **settings}))
    record = json.loads((run_dir / "run.json").read_text())
    del record["data"]["validation_images"], record["data"]["validation_split"]
    (run_dir / "run.json").write_text(json.dumps(record))


def test_a_run_on_data_with_a_test_part_goes_on(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """Its images are the same, all training images are trained on as before, and its figures stay."""
    first = fit(config, dataset, tmp_path / "run")
    make_earlier(tmp_path / "run")
    opened = RunFolder.open(tmp_path / "run")
    assert opened.config.validation_share == 0.0
    assert opened.record.data.validation_images is None
    assert evaluated(tmp_path / "run").bound == first.evaluation.bound
    again = fit(opened.config, dataset, tmp_path / "run", resume=True)
    assert again.progress == first.progress


@pytest.mark.parametrize("settings", [{}, {"early_stop_epochs": 3}], ids=str)
def test_a_run_whose_test_images_were_drawn_by_a_shuffle_is_refused(
    blobs: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The images that are held out now were trained on then: no figure of them is given."""
    images = np.load(blobs)[..., None]
    order = np.random.default_rng(0).permutation(80)
    shuffled = Dataset(name=str(blobs), split="", train=images[order[:-8]], test=images[order[-8:]])
    fit(config_from({"dataset": str(blobs), **TINY, "epochs": 1}), shuffled, tmp_path / "run")
    make_earlier(tmp_path / "run", **settings)
    with pytest.raises(BadRun) as raised:
        evaluated(tmp_path / "run")
    assert str(raised.value) == (
        f"the images of {blobs} are not the images of the run in {tmp_path / 'run'}; an earlier version"
        " trained it, which held out other images: go on with that version, or start a new run"
    )
