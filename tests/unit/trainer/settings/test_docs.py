"""The tables of docs/training agree with the code."""

import dataclasses
import json
import re
from pathlib import Path

from convvae_trainer.cli.fit import fit
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.runs.fit import Fitted
from convvae_trainer.settings.config import DEFAULT_EPOCHS, Config

TRAINING = Path(__file__).parents[4] / "docs" / "training"
SETTINGS = (TRAINING / "settings.md").read_text()
IN_WORDS = {
    "dataset": "",
    "train_images": "all",
    "image_size": "as the data are",
    "epochs": str(DEFAULT_EPOCHS),
    "minutes": "none",
    "threads": "all CPUs",
    "sigma": "learned",
    "early_stop_epochs": "none",
}


def test_every_setting_stands_there_with_its_default() -> None:
    """The table lists the settings in their order, and which are no flags."""
    table = SETTINGS.partition("<!-- settings:begin -->")[2].partition("<!-- settings:end -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*) ?\|$", table, re.MULTILINE)
    assert [name for name, _, _ in rows] == [field.name for field in dataclasses.fields(Config)]
    for (name, default, text), field in zip(rows, dataclasses.fields(Config), strict=True):
        expected = IN_WORDS.get(name)
        assert default.strip() == (f"`{json.dumps(field.default)}`" if expected is None else expected), name
        assert ("in files only" in text) == (name not in fit.__annotations__), name


def test_every_file_of_a_run_stands_there(fitted: tuple[Fitted, Dataset]) -> None:
    """The table of the run folder is complete."""
    section = (TRAINING / "runs.md").read_text().partition("## The run folder")[2].partition("##")[0]
    listed = set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE))
    assert listed == {path.name for path in fitted[0].run.path.iterdir()}
