"""Results that are read again: the kinds of files, and what is no result of one run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convvae_service.pipeline.result import BadResult, open_result, vectors

METADATA = {
    "convvae.model": "tiny",
    "convvae.model_version": "1",
    "convvae.precision": "fp32",
    "convvae.encoder_sha256": "0" * 64,
    "convvae.latent_dim": "4",
    "convvae.image": "8x6x1",
}
VECTORS = np.arange(40, dtype=np.float32).reshape(10, 4)


def table(**metadata: str) -> pa.Table:
    """Return ten rows, with these metadata instead of the usual ones."""
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), 4)
    columns = {"id": [str(row) for row in range(10)], "embedding": embedding}
    changed = {f"convvae.{key}": value for key, value in metadata.items()}
    return pa.table(columns).replace_schema_metadata(METADATA | changed)


def write_npy(path: Path) -> Path:
    """Write the same rows as an .npy file with its ids."""
    np.save(path, VECTORS)
    described = {"ids": [str(row) for row in range(10)], "metadata": METADATA}
    path.with_suffix(".json").write_text(json.dumps(described))
    return path


def write_parts(folder: Path, second: pa.Table) -> Path:
    """Write a complete result of two parts: ten rows, and the table `second`."""
    folder.mkdir()
    pq.write_table(table(), folder / "part-00000.parquet")
    pq.write_table(second, folder / "part-00001.parquet")
    parts = [{"name": f"part-0000{number}.parquet", "rows": 10} for number in range(2)]
    (folder / "_result.json").write_text(json.dumps({"parts": parts}))
    return folder


def rows_of(path: Path) -> list[tuple[str, list[float]]]:
    """Return ids and vectors of a result, read in batches of three."""
    found: list[tuple[str, list[float]]] = []
    for batch in open_result(path).batches(["embedding", "id"], rows=3):
        assert len(batch) <= 3
        found += zip(batch.column("id").to_pylist(), vectors(batch).tolist(), strict=True)
    return found


def test_all_kinds_of_results_give_the_same_rows(tmp_path: Path) -> None:
    """A Parquet file, an .npy file with ids, and parts."""
    expected = [(str(row), VECTORS[row].tolist()) for row in range(10)]
    pq.write_table(table(), tmp_path / "z.parquet")
    assert rows_of(tmp_path / "z.parquet") == expected
    assert rows_of(write_npy(tmp_path / "z.npy")) == expected
    assert rows_of(write_parts(tmp_path / "z", table())) == expected * 2


def test_an_npy_result_needs_ids_of_its_rows(tmp_path: Path) -> None:
    """The JSON file is missing, damaged, or of another file; the array is none."""
    path = write_npy(tmp_path / "z.npy")
    np.save(path, VECTORS[:7])
    with pytest.raises(BadResult, match=r"z\.npy has 7 vectors, and z\.json has 10 ids"):
        open_result(path)
    np.save(path, VECTORS[0])
    with pytest.raises(BadResult, match=r"has no vectors: its array is float32 \(4,\)"):
        open_result(path)
    path.write_bytes(b"no array")
    with pytest.raises(BadResult, match=r"z\.npy is not an \.npy file, or is damaged"):
        open_result(path)
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(BadResult, match=r"z\.json is damaged"):
        open_result(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(BadResult, match=r"z\.json is missing, which has the ids of z\.npy"):
        open_result(path)


@pytest.mark.parametrize(
    "other", [{"encoder_sha256": "1" * 64}, {"model_version": "2"}, {"precision": "int8"}, {"model": "x"}]
)
def test_parts_of_two_encoders_are_refused(tmp_path: Path, other: dict[str, str]) -> None:
    """A part that was copied from another result would mix two latent spaces."""
    with pytest.raises(BadResult, match=r"part-00001\.parquet is of another run than part-00000\.parquet"):
        open_result(write_parts(tmp_path / "z", table(**other)))


def test_a_part_with_other_rows_is_refused(tmp_path: Path) -> None:
    """Fewer rows than the run wrote, or other columns."""
    with pytest.raises(BadResult, match="have 14 rows, not 20"):
        open_result(write_parts(tmp_path / "a", table().slice(0, 4)))
    with pytest.raises(BadResult, match="encoder or columns differ"):
        open_result(write_parts(tmp_path / "b", table().append_column("label", pa.array(range(10)))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.drop(["embedding"]),
            "not a result of convvae-embed run: it has no column 'embedding'",
        ),
        (lambda rows: rows.drop(["id"]), "it has no column 'id'"),
        (
            lambda rows: rows.replace_schema_metadata(None),
            "was not written by convvae-embed: it names no model",
        ),
        (
            lambda rows: rows.replace_schema_metadata({"convvae.model": "x"}),
            "metadata lack convvae.model_version",
        ),
        (
            lambda _: table(latent_dim="5"),
            r"its vectors are fixed_size_list.*\[4\], not of 5 latent dimensions",
        ),
    ],
)
def test_a_file_that_is_no_result_is_named(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    """A table of pairs, or a result that another program has written again."""
    pq.write_table(change(table()), tmp_path / "z.parquet")
    with pytest.raises(BadResult, match=message):
        open_result(tmp_path / "z.parquet")


def test_a_folder_of_images_is_no_unfinished_result(tmp_path: Path) -> None:
    """Only a folder with a journal can be finished."""
    with pytest.raises(BadResult, match=r"is not a result of convvae-embed: it has no _result\.json"):
        open_result(tmp_path)
    (tmp_path / "_journal.jsonl").write_text("")
    with pytest.raises(BadResult, match="is not a complete result: finish it with"):
        open_result(tmp_path)


def test_damage_within_a_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    """The footer is whole, the rows are not."""
    path: Any = tmp_path / "z.parquet"
    pq.write_table(table(), path, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[8:60] = bytes(52)
    path.write_bytes(data)
    with pytest.raises(BadResult, match=r"z\.parquet is damaged"):
        list(open_result(path).batches(["id"]))
