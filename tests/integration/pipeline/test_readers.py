"""The examples of docs/bulk-embedding.md for other libraries, in an environment of their own."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
READERS = ROOT / ".tools" / "readers-venv" / "bin" / "python"
ATLAS = ROOT / ".tools" / "embedding-atlas-venv" / "bin" / "embedding-atlas"
PAGE = (ROOT / "docs" / "bulk-embedding.md").read_text()
READING = re.split(r"^## ", PAGE.partition("## Reading the result")[2], flags=re.MULTILINE)[0]
EXAMPLES = dict(re.findall(r"^(\S[^\n]*):\n\n```python\n(.*?)```", READING, re.MULTILINE | re.DOTALL))
SHELL_EXAMPLES = dict(re.findall(r"^(\S[^\n]*):\n\n```sh\n(.*?)```", READING, re.MULTILINE | re.DOTALL))
# Appended to each example: all rows as they are, or the ten nearest of a row, itself the first.
CHECK = """
import json
if "z" in globals() and "ids" in globals() and len(ids) == 50:
    assert z.shape == (50, 4), z.shape
    print(json.dumps({"ids": list(ids), "first": [float(value) for value in z[0]]}))
else:
    print(json.dumps({"nearest": list(ids)}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Path:
    """A folder with 50 images in the latent space of `tiny`, with ids as on the page.

    They are in one file, photos.parquet, and in three parts, embeddings.
    """
    folder = tmp_path_factory.mktemp("readers")
    random = np.random.default_rng(0)
    for number in range(50):
        path = folder / "photos" / str(number % 10) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(8, 6), dtype=np.uint8)).save(path)
    for sink in ("photos.parquet", "embeddings"):
        words = ["run", folder / "photos", folder / sink, "--bundle", tiny_root / "tiny", "--thumbnail"]
        words += [] if sink == "photos.parquet" else ["--part-rows", 20]
        subprocess.run(
            [sys.executable, "-m", "convvae_service.pipeline", *map(str, words)], check=True, timeout=120
        )
    return folder


def test_every_library_has_an_example() -> None:
    """The page shows how each of them opens the file."""
    shown = " ".join([*EXAMPLES, *SHELL_EXAMPLES]).lower()
    libraries = ("pyarrow", "pandas", "polars", "duckdb", "lancedb", "hugging face", "faiss", "usearch")
    for library in (*libraries, "embedding-atlas"):
        assert library in shown


def check_example(folder: Path, name: str, result: str) -> None:
    """Run an example with the result of this name, and check what it finds."""
    if not READERS.exists():
        pytest.skip("the libraries are not installed: make tools")
    import json

    import pyarrow.parquet as pq

    example = EXAMPLES[name].replace("photos.parquet", result)
    done = subprocess.run(
        [READERS, "-c", example + CHECK], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    table = pq.read_table(folder / "photos.parquet")
    if "nearest" in found:
        assert len(found["nearest"]) == 10
        by_id = "7/0007.png"
        assert found["nearest"][0] == (by_id if by_id in EXAMPLES[name] else table["id"][7].as_py())
    else:
        assert found["ids"] == table["id"].to_pylist()
        np.testing.assert_allclose(found["first"], table["embedding"][0].as_py(), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_library_reads_the_result(folder: Path, name: str) -> None:
    """It finds all ids and vectors in order, or the row itself, by number 7 or by id, first among ten."""
    check_example(folder, name, "photos.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["pyarrow", "pandas", "polars", "DuckDB", "Hugging Face"])
def test_a_library_reads_the_parts(folder: Path, reader: str) -> None:
    """The folder with pyarrow and pandas, the names of its files with the others."""
    (name,) = (name for name in EXAMPLES if name.startswith(reader))
    takes_folder = reader in ("pyarrow", "pandas")
    check_example(folder, name, "embeddings" if takes_folder else "embeddings/part-*.parquet")


@pytest.mark.slow
def test_embedding_atlas_takes_the_result(folder: Path) -> None:
    """The application that it exports has all ids and vectors, and the thumbnails."""
    if not ATLAS.exists():
        pytest.skip("embedding-atlas is not installed: make tools")
    import pyarrow.parquet as pq

    _, *words = shlex.split(SHELL_EXAMPLES["embedding-atlas, a map in the browser"])
    # UMAP is not installed here.
    words += ["--disable-projection", "--export-application", "atlas"]
    done = subprocess.run(
        [ATLAS, *words],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (folder / "atlas" / "index.html").stat()
    found = pq.read_table(folder / "atlas" / "data" / "dataset.parquet")
    table = pq.read_table(folder / "photos.parquet")
    assert found["id"].to_pylist() == table["id"].to_pylist()
    assert found["embedding"].to_pylist() == table["embedding"].to_pylist()
    assert len(found["thumbnail"][0].as_py()["bytes"]) > 0
