"""docs/bulk-embedding.md is followed, not believed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer.main

from convvae_service.pipeline.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bulk-embedding.md").read_text()
FIRST_STEPS = re.split(r"^## ", PAGE.partition("## First steps")[2], flags=re.MULTILINE)[0]
DIGITS = ROOT / "tests" / "golden" / "recorded" / "schema-3" / "models" / "digits"


@pytest.mark.slow
def test_the_first_steps_run_in_order(tmp_path: Path) -> None:
    """Every block but the training works as printed, in an empty folder with a model of digits."""
    (training_language, training), *blocks = re.findall(r"```(sh|python)\n(.*?)```", FIRST_STEPS, re.DOTALL)
    assert training_language == "sh"
    assert re.fullmatch(r"convvae-train fit --dataset digits .* --name digits\n", training)
    assert [language for language, _ in blocks] == ["python", "sh"]
    shutil.copytree(DIGITS, tmp_path / "models" / "digits")
    (tmp_path / "photos.py").write_text(blocks[0][1])
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    commands = blocks[1][1].replace("--by label", "--by label --max-rows 200")  # t-SNE of all takes long
    script = f"set -eu\n{sys.executable} photos.py\n{commands}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1,797 rows in ")
    assert lines[1] == "7/0007.png"
    assert lines[-1] == "200 rows in map.html"
    table = pq.read_table(tmp_path / "photos.parquet")
    assert [path.split("/")[0] for path in table["id"].to_pylist()] == table["label"].to_pylist()
    assert {path.name for path in tmp_path.iterdir()} >= {"neighbors.png", "pairs.parquet", "pairs.png"}


@pytest.mark.parametrize("command", ["run", "neighbors", "duplicates", "map"])
def test_every_option_is_on_the_page(command: str) -> None:
    """What --help lists is explained here, or for all programs in docs/command-line.md."""
    found: Any = typer.main.get_command(app)
    options = {option for parameter in found.commands[command].params for option in parameter.opts}
    general = (ROOT / "docs" / "command-line.md").read_text()
    named = {option for option in options if option.startswith("--")}
    assert {option for option in named if not re.search(rf"{option}(?![\w-])", PAGE + general)} == set()
