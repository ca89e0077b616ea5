"""The tables of docs/training agree with the code."""

import re
import subprocess
import sys
from pathlib import Path

from convvae.program.settings_page import BEGIN, END, with_tables
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.runs.fit import Fitted
from convvae_trainer.runs.lock import LOCK_FILE
from convvae_trainer.settings.config import SETTINGS
from convvae_trainer.settings.table import settings_table

TRAINING = Path(__file__).parents[4] / "docs" / "training"


def test_the_table_of_settings_is_up_to_date() -> None:
    """The table on the page is the one that the declarations give."""
    page = (TRAINING / "settings.md").read_text()
    assert with_tables(page, settings_table()) == page, (
        "run python -m convvae_trainer.settings.table docs/training/settings.md"
    )


def test_the_table_has_every_setting_once() -> None:
    """Each setting has one row, with the facts of its declaration."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", settings_table(), re.MULTILINE)
    assert sorted(name for name, *_ in rows) == sorted(SETTINGS)
    for name, allowed, default, text in rows:
        setting = SETTINGS[name]
        assert (allowed, default) == (setting.allowed, setting.default_text)
        assert setting.declaration.help in text
        assert ("Only in files." in text) != setting.declaration.is_flag


def test_the_command_writes_the_table(tmp_path: Path) -> None:
    """The command replaces the text between the comments, and nothing else."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    subprocess.run([sys.executable, "-m", "convvae_trainer.settings.table", str(page)], check=True)
    assert page.read_text() == f"before\n{BEGIN}\n{settings_table()}{END}\nafter\n"


def test_every_file_of_a_run_stands_there(fitted: tuple[Fitted, Dataset]) -> None:
    """The table of the run folder is complete, with the lock that a run in training has."""
    section = (TRAINING / "runs.md").read_text().partition("## The run folder")[2].partition("##")[0]
    listed = set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE))
    assert listed == {LOCK_FILE} | {path.name for path in fitted[0].run.path.iterdir()}
