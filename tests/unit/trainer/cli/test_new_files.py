"""Files that exist: the commands refuse to replace them before any work, unless --force is given."""

from pathlib import Path

import pytest

from convvae_trainer.cli.app import app
from convvae_trainer.errors import BadConfig, TrainerError

COMPARE = ("compare", "absent/model", "--dataset", "digits", "--out", "report.html")
EVALUATE = ("evaluate", "absent", "--out", "figures.json")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (COMPARE, "report.html"),
        (COMPARE, "report.json"),
        (COMPARE, "report_files/pairs.png"),
        (EVALUATE, "figures.json"),
    ],
)
def test_a_file_that_exists_is_kept(
    words: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report, its figures and its pictures count alike. With --force the work begins."""
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("mine")
    with pytest.raises(BadConfig, match=f"--out: {name} exists: give --force to replace it"):
        app.run(words)
    with pytest.raises(TrainerError, match="absent"):
        app.run([*words, "--force"])
    assert Path(name).read_text() == "mine"
