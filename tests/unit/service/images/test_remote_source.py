"""Sources at addresses of S3: every kind, patterns, and objects that are not there."""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from convvae_service.images import BadSource, ModelInput, SourceOptions, address, open_source
from support.s3_server import s3_server
from support.source_reading import read_source
from support.tar_file import write_tar


@pytest.fixture
def objects(folder: Path, images: NDArray[np.uint8], tmp_path: Path) -> dict[str, bytes]:
    """A bucket with a folder of 12 images, the same in a tar archive and a Parquet file, and an array."""
    paths = sorted(path for path in folder.rglob("[0-9]*.*"))
    files = [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]
    array, table = io.BytesIO(), io.BytesIO()
    np.save(array, images)
    pq.write_table(pa.table({"image": [data for _, data in files]}), table)
    return {
        "bucket/x.npy": array.getvalue(),
        "bucket/s-000.tar": write_tar(tmp_path / "a.tar", files[:5]).read_bytes(),
        "bucket/s-001.tar": write_tar(tmp_path / "b.tar", files[5:]).read_bytes(),
        "bucket/x.parquet": table.getvalue(),
        **{f"bucket/pictures/{name}": data for name, data in files},
    }


@pytest.fixture
def query(objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The end of an address of the server."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with s3_server(objects) as query:
        yield query


@pytest.mark.parametrize("name", ["s-{000..001}.tar", "s-*.tar", "x.parquet", "pictures"])
def test_remote_files_have_the_pixels_of_local_ones(
    name: str, query: str, folder: Path, tiny_input: ModelInput
) -> None:
    """Shards by braces or a star, a Parquet file, and a folder, from the address of a bucket."""
    source = open_source(f"s3://bucket/{name}?{query}")
    expected = read_source(open_source(str(folder)), tiny_input).images
    np.testing.assert_array_equal(read_source(source, tiny_input, count=5).images, expected)
    stamps = [shard.stamp() for shard in source.shards]
    assert stamps == list(source.stamps)
    assert all(stamps)


def test_name_of_any_letters_is_read(query: str, objects: dict[str, bytes], tiny_input: ModelInput) -> None:
    """Letters that an address may not have are written as they are, and `%` as `%25`."""
    for name in ("a b.tar", "grün.tar", "a#b.tar", "a+b.tar", "50%25.tar", "a%20b.tar"):
        objects[f"bucket/{unquote(name)}"] = objects["bucket/s-000.tar"]
        assert len(read_source(open_source(f"s3://bucket/{name}?{query}"), tiny_input).ids) == 5


def test_list_of_addresses_is_read(
    query: str, objects: dict[str, bytes], tiny_input: ModelInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file system is opened for all objects of a bucket, and an object that is missing is rejected."""
    opened: list[str] = []
    open_bucket = address._open_bucket.__wrapped__

    @cache
    def noted(text: str) -> tuple[Any, str]:
        opened.append(text)
        return open_bucket(text)

    monkeypatch.setattr(address, "_open_bucket", noted)
    names = sorted(name for name in objects if name.startswith("bucket/pictures/"))
    lines = [f"s3://{name}?{query}" for name in [*names, "bucket/gone.png"]]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("\n".join(lines).encode())))
    source = open_source("-")
    batch = read_source(source, tiny_input)
    assert batch.ids == lines[:-1]
    assert [row.id for row in batch.rejected] == lines[-1:]
    assert len(opened) == 1
    assert source.shards[0].stamp() == source.stamps[0]


def test_remote_folder_leaves_out_what_a_local_one_does(
    query: str, objects: dict[str, bytes], tiny_input: ModelInput
) -> None:
    """Hidden files and other kinds are counted, and an object larger than any image is not read."""
    image = objects["bucket/pictures/class-0/00.png"]
    names = (".a.png", ".cache/b.png", "c.txt", "d/e.tif", "d/f.tif", "g", "h.PNG")
    objects |= {f"bucket/more/{name}": image for name in names}
    objects["bucket/more/i.png"] = bytes((64 << 20) + 1)
    source = open_source(f"s3://bucket/more?{query}", SourceOptions(max_pixels=1000))
    assert source.left_out.counts == {"hidden": 2, ".tif": 2, ".txt": 1, "of other kinds": 1}
    batch = read_source(source, tiny_input)
    assert batch.ids == ["h.PNG"]
    assert [row.id for row in batch.rejected] == ["i.png"]
    assert batch.rejected[0].reason.endswith("limit of 67,108,864 for 1000 pixels: --max-pixels raises it")


def test_remote_array_is_read(query: str, images: NDArray[np.uint8], tiny_input: ModelInput) -> None:
    """It is copied to the temporary folder first."""
    source = open_source(f"s3://bucket/x.npy?{query}")
    np.testing.assert_array_equal(read_source(source, tiny_input, start=3).images, images[3:])


MISSING = [
    ("s3://bucket/gone.tar?{query}", "gone.tar?"),
    ("s3://bucket/none-*.tar?{query}", "matches no file"),
    ("nothing://bucket/x.tar", "source 'nothing://bucket/x.tar' cannot be opened: "),
    ("s3://KEY:hidden@bucket/gone.tar?{query}", "source 's3://KEY:***@bucket/gone.tar?"),
    ("s3://KEY:hidden@bucket/none-*.tar?{query}", "source 's3://KEY:***@bucket/none-*.tar' matches no"),
    ("s3://bucket/\udcff.tar?{query}", "source 's3://bucket/\\xff.tar?"),
    ("s3://KEY:hidden@/x.tar", "source 's3://KEY:***@/x.tar' cannot be opened: "),
    ("hf://datasets/x/y.parquet", "source 'hf://datasets/x/y.parquet' cannot be opened: "),
]


def test_remote_file_that_is_missing_is_refused(query: str) -> None:
    """The message names the address, without a secret key."""
    for text, message in MISSING:
        with pytest.raises(BadSource) as caught:
            open_source(text.format(query=query))
        assert message in str(caught.value)
        assert "hidden" not in str(caught.value)


def test_truncated_remote_archive_is_refused(
    query: str, objects: dict[str, Any], tiny_input: ModelInput
) -> None:
    """It is found when the archive is read."""
    objects["bucket/s-000.tar"] = objects["bucket/s-000.tar"][:700]
    with pytest.raises(BadSource, match=r"s-000\.tar is truncated: "):
        read_source(open_source(f"s3://bucket/s-000.tar?{query}"), tiny_input)
