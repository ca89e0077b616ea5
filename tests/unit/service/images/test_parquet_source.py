"""Parquet files as sources: columns of images and paths, conditions, kept columns, and damage."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convvae_service.images import BadSource, ModelInput, SourceOptions, open_source
from support.source_reading import read_source


@pytest.fixture
def columns(folder: Path) -> dict[str, Any]:
    """12 image files of several kinds, with their paths, numbers and splits."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("class-*/[0-9]*.*"))
    return {
        "path": names,
        "data": [(folder / name).read_bytes() for name in names],
        "label": list(range(12)),
        "split": ["train" if row % 3 else "test" for row in range(12)],
    }


def as_file(path: Path, columns: dict[str, Any], *, group_rows: int = 5) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=group_rows)
    return path


FORMS = [
    "bytes",
    "large bytes",
    "struct",
    "struct of paths",
    "path",
    "view",
    "dictionary",
    "dictionary of paths",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 3, 128])
def test_every_form_of_image_column_is_read(
    form: str, count: int, columns: dict[str, Any], folder: Path, tiny_input: ModelInput
) -> None:
    """Bytes, structs of bytes and path, and paths relative to the file, in the order of the rows."""
    images: Any
    match form:
        case "bytes":
            images = {"image": columns["data"], "note": columns["split"]}
        case "large bytes":
            images = {"anything": pa.array(columns["data"], pa.large_binary())}
        case "view":
            images = {"image": pa.array(columns["data"]).cast(pa.binary_view())}
        case "dictionary":
            images = {"image": pa.array(columns["data"]).dictionary_encode()}
        case "dictionary of paths":
            images = {"path": pa.array(columns["path"]).dictionary_encode(), "label": columns["label"]}
        case "struct":
            images = {"image": [{"bytes": data, "path": None} for data in columns["data"]]}
        case "struct of paths":
            structs = [{"bytes": None, "path": path} for path in columns["path"]]
            images = {"image": pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
        case _:
            images = {"path": columns["path"], "label": columns["label"]}
    path = as_file(folder / "train.parquet", images)
    source = open_source(str(path))
    assert source.rows == 12
    batch = read_source(source, tiny_input, count=count)
    assert batch.ids == [f"train/{row}" for row in range(12)]
    assert batch.rejected == []
    expected = read_source(open_source(str(folder)), tiny_input).images
    np.testing.assert_array_equal(batch.images, expected)


@pytest.mark.parametrize("start", [0, 4, 5, 7, 11])
@pytest.mark.parametrize("where", ["", "split == 'train'"])
def test_reading_can_start_at_any_row(
    start: int, where: str, columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """The rows from there on are those of a whole reading, with and without a condition."""
    path = as_file(tmp_path / "x.parquet", columns)
    source = open_source(str(path), SourceOptions(where=where, image_column="data"))
    whole = read_source(source, tiny_input)
    if start < len(whole.ids):
        assert read_source(source, tiny_input, start=start, count=2).ids == whole.ids[start:]


def test_columns_are_kept_with_their_types(
    columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Rows whose image cannot be read are left out of the kept columns too."""
    columns["data"][3] = b"no image"
    columns["data"][5] = None
    path = as_file(tmp_path / "x.parquet", columns)
    source = open_source(str(path), SourceOptions(keep=("split", "label"), id_column="path"))
    batch = read_source(source, tiny_input)
    good = [row for row in range(12) if row not in (3, 5)]
    assert batch.ids == [columns["path"][row] for row in good]
    assert batch.kept == {"split": [columns["split"][row] for row in good], "label": good}
    assert [row.reason for row in batch.rejected] == ["not a JPEG, PNG or WebP image", "the row has no image"]
    assert source.columns == {"split": pa.string(), "label": pa.int64()}


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("label == 3", [3]),
        ("label == 3 or label > 9", [3, 10, 11]),
        ("2 <= label < 5 and split == 'train'", [2, 4]),
        ("not split == 'train'", [0, 3, 6, 9]),
        ("split in ('test', 'other') and label not in [0, 9]", [3, 6]),
        ("label != -1 and label is not None and label <= 1", [0, 1]),
    ],
)
def test_condition_chooses_rows(
    where: str, rows: list[int], columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Ids name the row in the file, whatever the condition."""
    path = as_file(tmp_path / "x.parquet", columns)
    source = open_source(str(path), SourceOptions(where=where))
    assert source.rows is None
    assert read_source(source, tiny_input).ids == [f"x/{row}" for row in rows]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "label = 3"}, "--where 'label = 3' is not a condition such as label == 3"),
        ({"where": "open('x')"}, "--where cannot have \"open('x')\": it takes columns, numbers"),
        ({"where": "label.real == 3"}, "--where cannot have 'label.real'"),
        ({"where": "label + 1 == 3"}, "--where cannot have 'label + 1'"),
        ({"where": "lable == 3"}, "no column 'lable' for --where: it has path, data, label, split"),
        ({"where": "split == 3"}, "--where does not fit x.parquet: "),
        ({"where": "label"}, "--where does not fit x.parquet: "),
        ({"keep": ("colour",)}, "no column 'colour' for --keep: it has path, data, label, split"),
        ({"id_column": "data"}, "the ids in 'data' are binary: not text"),
        ({"id_column": "key"}, "no column 'key' for --id-column"),
        ({"image_column": "label"}, "no column 'label' of images or paths: it has path, data, label, split"),
        ({"where": "not " * 2000 + "label"}, "is nested too deeply"),
        (
            {"where": "label == 99999999999999999999"},
            "cannot have '99999999999999999999': it has more than 64",
        ),
    ],
)
def test_wrong_columns_are_refused_at_once(
    options: dict[str, Any], message: str, columns: dict[str, Any], tmp_path: Path
) -> None:
    """Before any row is read, with the columns that there are."""
    path = as_file(tmp_path / "x.parquet", columns)
    with pytest.raises(BadSource) as caught:
        open_source(str(path), SourceOptions(**options))
    assert message in str(caught.value)


def test_row_without_id_is_rejected(columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput) -> None:
    """Its place names it; ids that are numbers become texts."""
    columns["key"] = [None, *range(100, 111)]
    path = as_file(tmp_path / "x.parquet", columns)
    batch = read_source(open_source(str(path), SourceOptions(id_column="key")), tiny_input)
    assert batch.ids == [str(key) for key in range(100, 111)]
    assert [(row.id, row.reason) for row in batch.rejected] == [("x/0", "the row has no id")]


def test_unclear_column_of_images_must_be_named(tmp_path: Path) -> None:
    """Two columns of bytes with names that say nothing could both be it."""
    path = as_file(tmp_path / "x.parquet", {"a": [b""], "b": [b""]})
    with pytest.raises(BadSource, match=r"which column of x\.parquet has the images: name one of a, b with"):
        open_source(str(path))


def test_file_without_columns_of_images_says_what_it_has(tmp_path: Path) -> None:
    """Types that hold no image are named with their columns."""
    path = as_file(tmp_path / "x.parquet", {"images": [[b"a"]], "n": [1]})
    with pytest.raises(
        BadSource, match=r"no column of images or paths, .*: it has images \(list<.*, n \(int64"
    ):
        open_source(str(path))


def test_columns_of_one_name_are_told_apart_or_refused(
    columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Two columns of a name that nobody asks for do no harm. A column may have no name."""
    data, numbers = pa.array(columns["data"]), pa.array(range(12))
    table = pa.table([data, numbers, numbers, numbers], names=["image", "n", "n", ""])
    path = as_file(tmp_path / "x.parquet", table)
    assert read_source(open_source(str(path)), tiny_input).ids == [f"x/{row}" for row in range(12)]
    with pytest.raises(BadSource, match=r"x\.parquet has 2 columns 'n' for --keep: it has image, n, n, "):
        open_source(str(path), SourceOptions(keep=("n",)))
    path = as_file(tmp_path / "y.parquet", pa.table([data, data], names=["image", "image"]))
    with pytest.raises(
        BadSource, match=r"y\.parquet has no column of images .*: it has image \(binary\), image"
    ):
        open_source(str(path))


KEPT = {
    "time": pa.array([0, None, 2**40] * 4, pa.timestamp("us", "Europe/Berlin")),
    "decimal": pa.array([None, *map(Decimal, range(11))], pa.decimal128(20, 3)),
    "list": pa.array([[1, None], None, []] * 4),
    "struct": pa.array([{"a": {"b": "x"}}, None, {"a": None}] * 4),
    "dictionary": pa.array(["a", None, "b"] * 4).dictionary_encode(),
    "nothing": pa.nulls(12),
    "view": pa.array(["a", None, "longer than the twelve bytes of a view"] * 4).cast(pa.string_view()),
}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("where", ["", "label != 4"])
def test_column_of_any_type_is_kept(
    name: str, where: str, columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Values are those of the file, with rows left out by a condition or for their image."""
    columns["data"][5] = b"no image"
    path = as_file(tmp_path / "x.parquet", {**columns, name: KEPT[name]})
    source = open_source(str(path), SourceOptions(keep=(name,), where=where, image_column="data"))
    batch = read_source(source, tiny_input, count=4)
    chosen = [row for row in range(12) if row != 5 and not (where and row == 4)]
    assert batch.ids == [f"x/{row}" for row in chosen]
    assert batch.kept[name] == [KEPT[name].to_pylist()[row] for row in chosen]


def test_batch_without_readable_images_is_read(
    columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Its kept columns are empty, and the rows before and after it are read."""
    columns["data"][5] = b"no image"
    path = as_file(tmp_path / "x.parquet", columns)
    source = open_source(str(path), SourceOptions(keep=("split", "label"), image_column="data"))
    batch = read_source(source, tiny_input, count=1)
    assert batch.kept["label"] == [row for row in range(12) if row != 5]
    assert [row.id for row in batch.rejected] == ["x/5"]


def test_ids_of_a_dictionary_are_read(
    columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Categories are texts."""
    columns["key"] = pa.array(columns["path"]).dictionary_encode()
    path = as_file(tmp_path / "x.parquet", columns)
    assert (
        read_source(open_source(str(path), SourceOptions(id_column="key")), tiny_input).ids == columns["path"]
    )


@pytest.mark.parametrize("options", [{"id_column": "key"}, {"keep": ("key",)}, {"image_column": "key"}])
def test_text_that_is_not_utf8_is_damage(
    options: dict[str, Any], columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Other writers do not check it. Nobody could read a result with such a text."""
    columns["key"] = pa.StringArray.from_buffers(
        12, pa.py_buffer(np.arange(13, dtype=np.int32)), pa.py_buffer(b"\xff" * 12)
    )
    path = as_file(tmp_path / "x.parquet", columns)
    source = open_source(str(path), SourceOptions(**options))
    with pytest.raises(BadSource, match=r"x\.parquet is damaged or truncated: .*UTF8"):
        read_source(source, tiny_input)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "the row has no image"),
        ("gone.png", "cannot be read: No such file or directory"),
        ("a\0b.png", "cannot be read: its name has a NUL byte"),
        (".", "it is not a regular file"),
        ("n" * 300, "cannot be read: File name too long"),
        ("ftp://host/x.png", "source 'ftp://host/x.png' cannot be opened: "),
        ("hf://datasets/x.png", "source 'hf://datasets/x.png' cannot be opened: "),
    ],
)
def test_path_that_cannot_be_read_is_rejected(
    path: str, reason: str, columns: dict[str, Any], folder: Path, tiny_input: ModelInput
) -> None:
    """The other rows are read."""
    file = as_file(folder / "x.parquet", {"path": [columns["path"][0], path]})
    batch = read_source(open_source(str(file)), tiny_input)
    assert batch.ids == ["x/0"]
    (row,) = batch.rejected
    assert row.reason.startswith(reason)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_every_compression_is_read(
    version: str, compression: str, columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """In both versions of data pages."""
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"image": columns["data"]}), path, 5, data_page_version=version, compression=compression
    )
    assert len(read_source(open_source(str(path)), tiny_input).ids) == 12


def test_file_cut_anywhere_is_refused_at_once(columns: dict[str, Any], tmp_path: Path) -> None:
    """In one line, wherever it ends."""
    path = as_file(tmp_path / "x.parquet", columns)
    data = path.read_bytes()
    for size in range(0, len(data), 97):
        path.write_bytes(data[:size])
        with pytest.raises(BadSource, match=r"^x\.parquet is damaged or truncated: [^\n]+$"):
            open_source(str(path))


def test_truncated_file_is_refused_at_once(columns: dict[str, Any], tmp_path: Path) -> None:
    """The footer is missing."""
    path = as_file(tmp_path / "x.parquet", columns)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadSource, match=r"x\.parquet is damaged or truncated: "):
        open_source(str(path))


def test_damage_in_the_middle_is_named(
    columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """A page that cannot be read ends the run with the file's name."""
    path = as_file(tmp_path / "x.parquet", columns)
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(BadSource, match=r"x\.parquet is damaged or truncated: "):
        read_source(open_source(str(path)), tiny_input)


def test_file_without_rows_is_refused(columns: dict[str, Any], tmp_path: Path) -> None:
    """There is nothing to embed."""
    pq.write_table(pa.table(columns).slice(0, 0), tmp_path / "x.parquet")
    with pytest.raises(BadSource, match=r"x\.parquet has no rows"):
        open_source(str(tmp_path / "x.parquet"))


def test_file_without_rows_is_passed_over_among_others(
    columns: dict[str, Any], tmp_path: Path, tiny_input: ModelInput
) -> None:
    """Spark writes empty shards."""
    as_file(tmp_path / "a.parquet", columns)
    pq.write_table(pa.table(columns).slice(0, 0), tmp_path / "b.parquet")
    as_file(tmp_path / "c.parquet", columns)
    source = open_source(str(tmp_path / "*.parquet"), SourceOptions(keep=("label",)))
    assert source.rows == 24
    assert read_source(source, tiny_input).kept["label"] == [*range(12), *range(12)]


def test_condition_needs_a_parquet_file(folder: Path) -> None:
    """Other sources have no columns to compare."""
    with pytest.raises(BadSource, match="--where needs Parquet files, and pictures is none"):
        open_source(str(folder), SourceOptions(where="label == 3"))
