"""Ids that several rows have, across files and in bounded memory."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae_service.pipeline import duplicate_ids as module
from convvae_service.pipeline.duplicate_ids import duplicate_ids


@given(parts=st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=4), most=st.integers(1, 50))
def test_every_repeated_id_is_found(
    parts: list[list[int]], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However few hashes are in memory at once."""
    folder = tmp_path_factory.mktemp("parts")
    files = [folder / f"{number}.parquet" for number in range(len(parts))]
    for file, ids in zip(files, parts, strict=True):
        pq.write_table(pa.table({"id": pa.array(map(str, ids), pa.string())}), file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_HASHES", most)
        found = duplicate_ids(files)
    together = [row_id for ids in parts for row_id in ids]
    expected = sorted({str(row_id) for row_id in together if together.count(row_id) > 1})
    assert (found.count, list(found.ids)) == (len(expected), expected)


def test_equal_hashes_of_different_ids_are_no_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids themselves decide."""
    pq.write_table(pa.table({"id": ["a", "b", "a"]}), tmp_path / "x.parquet")
    monkeypatch.setattr(module, "hash", lambda _: 7, raising=False)
    assert duplicate_ids([tmp_path / "x.parquet"]).ids == ("a",)
