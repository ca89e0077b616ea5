"""The files of a commit whose server is measured: the working copy, or another commit."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

__all__ = ["ROOT", "Checkout", "checkout_of"]

ROOT = Path(__file__).parents[3]
PUBLISH = """\
import sys
from pathlib import Path
from bench.start_up import publish_reference
publish_reference(*map(Path, sys.argv[1:3]), *sys.argv[3:])
"""


@dataclass(frozen=True)
class Checkout:
    """The files of one commit. Its programs run with the packages of this interpreter."""

    name: str
    root: Path

    # The graphs that the bench of every commit can publish.
    first_graph: ClassVar[str] = "28x28x1"

    @property
    def environ(self) -> dict[str, str]:
        """Environment in which its packages come before installed ones."""
        folders = [str(self.root / name) for name in ("protos", "trainer", "service", "tests")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}

    def fronts(self) -> list[str]:
        """Return the fronts that its server has; one without a name if there is no choice."""
        words = [sys.executable, "-m", "convvae_service", "run", "--help"]
        text = subprocess.check_output(words, env=self.environ, text=True)
        # As the help of each commit writes it: {auto,native,grpcio} or auto|native|grpcio.
        found = re.search(r"--front \{?(\w+(?:[,|]\w+)+)", text)
        return [name for name in re.split("[,|]", found[1]) if name != "auto"] if found else [""]

    def server_name(self, front: str) -> str:
        """Return the name of its server with this front in the report."""
        if self.root == ROOT:
            return front or self.name
        return f"{self.name} {front}".strip()

    def publish(self, models: Path, bench_root: Path, graph: str) -> None:
        """Publish reference graphs with the bundle format of this commit."""
        more = () if graph == self.first_graph else (graph,)
        words = [sys.executable, "-c", PUBLISH, str(models), str(bench_root), *more]
        subprocess.run(words, env=self.environ, check=True, cwd=ROOT)


@contextmanager
def checkout_of(commit: str) -> Iterator[Checkout]:
    """Give the files of a commit in a temporary folder; the repository itself is not changed.

    Raises:
        ValueError: There is no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="convvae-bench-") as folder:
        archive = Path(folder, "files.tar")
        words = ["git", "-C", str(ROOT), "archive", "--output", str(archive), commit]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"--against {commit}: {done.stderr.strip()}")
        files = Path(folder, "files")
        files.mkdir()
        subprocess.run(["tar", "-xf", str(archive), "-C", str(files)], check=True)
        yield Checkout(commit, files)
