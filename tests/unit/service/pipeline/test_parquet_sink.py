from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from convvae_service.images import ModelInput
from convvae_service.pipeline import parquet_sink
from convvae_service.pipeline.encoder import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import RunFailed
from convvae_service.pipeline.npy_sink import NpySink
from convvae_service.pipeline.parquet_sink import ParquetSink
from convvae_service.pipeline.sink import Columns, EncodedRows, Provenance


@pytest.fixture
def provenance(tiny_input: ModelInput) -> Provenance:
    """The provenance of version 3 of `tiny`, with a latent dimension of 4."""
    info = EncoderInfo(
        input=tiny_input, version=3, precision="fp32", sha256="ab" * 32, latent_dim=4, has_log_variance=True
    )
    return Provenance(encoder=info, source="x.npy", columns=Columns(log_variance=True))


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def write(path: Path, provenance: Provenance, batches: list[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    mean, log_variance = rows(sum(batches)), rows(sum(batches), seed=1)
    start = 0
    with ParquetSink(path, provenance, overwrite=False) as sink:
        for count in batches:
            part = slice(start, start + count)
            ids = [f"id {row}" for row in range(start, start + count)]
            sink.write(EncodedRows(ids, Embeddings(mean[part], log_variance[part])))
            start += count
        assert sink.finish({"convvae.rows": str(start)}) == path.stat().st_size
    return mean, log_variance


def test_what_is_written_is_read_back(tmp_path: Path, provenance: Provenance) -> None:
    """Ids, vectors and their types survive the file."""
    mean, log_variance = write(tmp_path / "x.parquet", provenance, [3, 1, 5])
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column("id").to_pylist() == [f"id {row}" for row in range(9)]
    for name, expected in (("embedding", mean), ("log_variance", log_variance)):
        column = table.column(name).combine_chunks()
        assert column.type.list_size == 4
        np.testing.assert_array_equal(column.flatten().to_numpy().reshape(-1, 4), expected)


@pytest.mark.parametrize("kind", [ParquetSink, NpySink])
def test_values_beyond_float16_are_refused(kind: Any, tmp_path: Path, provenance: Provenance) -> None:
    """They would be stored as infinite. Infinite ones, and the largest that fit, are stored."""
    provenance = replace(provenance, columns=Columns(float16=True))
    mean = np.full((3, 4), [-65504, np.inf, np.nan, 1e-30], np.float32)
    with kind(tmp_path / "x", provenance, overwrite=False) as sink:
        sink.write(EncodedRows(["a", "b", "c"], Embeddings(mean)))
        with pytest.raises(RunFailed, match="values beyond the range of float16: omit --float16"):
            sink.write(EncodedRows(["d", "e", "f"], Embeddings(mean * 2)))
    assert list(tmp_path.iterdir()) == []


def test_ids_too_long_for_one_array_are_written(
    tmp_path: Path, provenance: Provenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids of a row group may have more bytes than an array of Arrow can."""
    monkeypatch.setattr(parquet_sink, "MAX_TEXT_BYTES", 10)
    write(tmp_path / "x.parquet", provenance, [3, 2])
    assert pq.read_table(tmp_path / "x.parquet").column("id").to_pylist() == [f"id {row}" for row in range(5)]


def test_metadata_says_what_made_the_file(tmp_path: Path, provenance: Provenance) -> None:
    """The metadata have every documented key and no other key of this project."""
    write(tmp_path / "x.parquet", provenance, [2])
    metadata = {
        key.decode(): value.decode()
        for key, value in pq.read_metadata(tmp_path / "x.parquet").metadata.items()
        if key.startswith(b"convvae.")
    }
    assert metadata == {
        "convvae.format_version": "1",
        "convvae.model": "tiny",
        "convvae.model_version": "3",
        "convvae.precision": "fp32",
        "convvae.encoder_sha256": "ab" * 32,
        "convvae.latent_dim": "4",
        "convvae.image": "8x6x1",
        "convvae.source": "x.npy",
        "convvae.rows": "2",
    }


def test_row_groups_have_one_size_whatever_the_batches(
    tmp_path: Path, provenance: Provenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by the row group, and runs with different batches write the same file."""
    monkeypatch.setattr(parquet_sink, "MAX_GROUP_ROWS", 10)
    write(tmp_path / "a.parquet", provenance, [3, 7, 25, 1, 1])
    write(tmp_path / "b.parquet", provenance, [37])
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [10, 10, 10, 7]
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_wide_vectors_make_smaller_row_groups(
    tmp_path: Path, provenance: Provenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row group is also bounded in bytes."""
    monkeypatch.setattr(parquet_sink, "MAX_GROUP_BYTES", 5 * 2 * 4 * 4)
    write(tmp_path / "x.parquet", provenance, [12])
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [5, 5, 2]


def test_sink_that_is_not_finished_leaves_nothing(tmp_path: Path, provenance: Provenance) -> None:
    """An unfinished sink leaves neither the file nor its temporary form."""
    with ParquetSink(tmp_path / "x.parquet", provenance, overwrite=False) as sink:
        sink.write(EncodedRows(["a"], Embeddings(rows(1), rows(1))))
        assert not (tmp_path / "x.parquet").exists()
    assert list(tmp_path.iterdir()) == []


def test_further_columns_are_read_back(
    tmp_path: Path, provenance: Provenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ELBO terms, thumbnails, kept columns and float16 vectors survive row groups and batches of any size."""
    monkeypatch.setattr(parquet_sink, "MAX_GROUP_ROWS", 4)
    columns = Columns(
        score=True, thumbnail=True, float16=True, kept={"label": pa.int64(), "words": pa.list_(pa.string())}
    )
    mean, distortion = rows(9), np.arange(9, dtype=np.float32)
    with ParquetSink(tmp_path / "x.parquet", replace(provenance, columns=columns), overwrite=False) as sink:
        for start, stop in ((0, 3), (3, 9)):
            part = slice(start, stop)
            numbers = list(range(start, stop))
            kept = {"label": pa.array(numbers), "words": [[str(number)] for number in numbers]}
            embeddings = Embeddings(mean[part], None, distortion[part], 2 * distortion[part])
            pictures = [bytes([number]) for number in numbers]
            sink.write(EncodedRows([f"id {number}" for number in numbers], embeddings, kept, pictures))
        sink.finish({})
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == [
        "id", "embedding", "elbo", "distortion", "rate", "thumbnail", "label", "words",
    ]  # fmt: skip
    assert str(table.schema.field("embedding").type.value_type) == "halffloat"
    vectors = table.column("embedding").combine_chunks().flatten().to_numpy().reshape(-1, 4)
    np.testing.assert_array_equal(vectors, mean.astype(np.float16))
    assert table.column("elbo").to_pylist() == [-3.0 * number for number in range(9)]
    assert table.column("rate").to_pylist() == [2.0 * number for number in range(9)]
    assert table.column("label").to_pylist() == list(range(9))
    assert table.column("words").to_pylist() == [[str(number)] for number in range(9)]
    assert [picture["bytes"] for picture in table.column("thumbnail").to_pylist()] == [
        bytes([number]) for number in range(9)
    ]
