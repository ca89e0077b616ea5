"""A sink that writes a Parquet file with the columns `id`, `embedding`, and those that are asked for.

Dimensions: B = rows of a batch, R = rows of a row group, Z = latent dimension.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.errors import MissingExtra
from convvae_service.pipeline.sink import EncodedRows, FileSink, Provenance

__all__ = ["ParquetSink", "import_pyarrow"]

# A row group is held in memory, by the writer and by every reader.
MAX_GROUP_ROWS = 1 << 16
MAX_GROUP_BYTES = 16 << 20
# Of an Arrow array of texts: its offsets have 32 bits.
MAX_TEXT_BYTES = (1 << 31) - 1
SCORES = ("elbo", "distortion", "rate")


def import_pyarrow() -> ModuleType:
    """Import pyarrow with its Parquet module.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "pyarrow", "pipeline") from None
    return pyarrow  # type: ignore[no-any-return]


class ParquetSink(FileSink):
    """A Parquet file with row groups of equal size, independent of the size of the batches; see `Sink`."""

    def __init__(self, path: Path, provenance: Provenance, *, overwrite: bool, ends_run: bool = True) -> None:
        super().__init__(path, ends_run=ends_run)
        self._arrow: Any = import_pyarrow()
        self._provenance = provenance
        self._overwrite = overwrite
        self._latent_dim = provenance.encoder.latent_dim
        self._columns = columns = provenance.columns
        vectors = ["embedding", "log_variance"] if columns.log_variance else ["embedding"]
        row_bytes = self._latent_dim * 4 * len(vectors)
        row_bytes += math.prod(provenance.encoder.input.shape.as_tuple) if columns.thumbnail else 0
        self._group_rows = max(1, min(MAX_GROUP_ROWS, MAX_GROUP_BYTES // row_bytes))
        dtype = np.float16 if columns.float16 else np.float32
        self._columns_RZ: dict[str, NDArray[Any]] = {
            name: np.empty((self._group_rows, self._latent_dim), dtype) for name in vectors
        }
        # The incomplete row group: its ids, and the pieces of each column that is not a vector.
        self._ids: list[str] = []
        self._pieces: dict[str, list[Any]] = {}
        self._writer: Any = None

    def _open(self) -> None:
        self._files.append(AtomicFile(self._path, overwrite=self._overwrite))
        # An OSFile of Arrow takes no name that is not UTF-8.
        self._streams.append(self._files[0].path.open("wb"))
        self._streams.append(self._arrow.PythonFile(self._streams[0], "w"))
        self._writer = self._arrow.parquet.ParquetWriter(
            self._streams[1],
            self._schema(),
            # Vectors do not repeat, so a dictionary and statistics are useless. Byte-stream split compresses
            # 32 values to 104 bytes instead of 118. Either takes less than half a microsecond per row.
            use_dictionary=list(self._columns.kept),
            write_statistics=["id", *self._columns.kept],
            compression="zstd",
            column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in self._columns_RZ},
        )
        self._streams.append(self._writer)

    def _schema(self) -> Any:
        arrow, columns = self._arrow, self._columns
        kind = arrow.float16() if columns.float16 else arrow.float32()
        vector = arrow.list_(arrow.field("element", kind, nullable=False), self._latent_dim)
        fields = [arrow.field("id", arrow.string(), nullable=False)]
        fields += [arrow.field(name, vector, nullable=False) for name in self._columns_RZ]
        if columns.score:
            fields += [arrow.field(name, arrow.float32(), nullable=False) for name in SCORES]
        if columns.thumbnail:
            # The layout that viewers of data sets show as a picture.
            picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
            fields.append(arrow.field("thumbnail", picture))
        fields += [arrow.field(name, kind) for name, kind in columns.kept.items()]
        return arrow.schema(fields, metadata=self._provenance.as_metadata())

    def write(self, rows: EncodedRows) -> None:
        """Append rows. The rows of an incomplete row group stay in memory."""
        vectors = {name: rows.vectors(name, column.dtype) for name, column in self._columns_RZ.items()}
        others = self._other_columns(rows)
        start = 0
        while start < len(rows.ids):
            filled = len(self._ids)
            count = min(len(rows.ids) - start, self._group_rows - filled)
            for name, column_RZ in self._columns_RZ.items():
                column_RZ[filled : filled + count] = vectors[name][start : start + count]
            for name, values in others.items():
                self._pieces.setdefault(name, []).append(values.slice(start, count))
            self._ids += rows.ids[start : start + count]
            start += count
            if len(self._ids) == self._group_rows:
                self._write_group()

    def _other_columns(self, rows: EncodedRows) -> dict[str, Any]:
        """Return the columns that are not vectors, as Arrow arrays."""
        arrow, columns, found = self._arrow, self._columns, {}
        if columns.score:
            distortion_B, rate_B = rows.embeddings.distortion, rows.embeddings.rate
            assert distortion_B is not None
            assert rate_B is not None
            for name, values_B in zip(SCORES, (-(distortion_B + rate_B), distortion_B, rate_B), strict=True):
                found[name] = _numbers(arrow, values_B)
        if columns.thumbnail:
            pictures = [{"bytes": picture, "path": None} for picture in rows.thumbnails]
            found["thumbnail"] = arrow.array(pictures, self._writer.schema.field("thumbnail").type)
        for name, kind in columns.kept.items():
            values = rows.kept[name]
            found[name] = values if hasattr(values, "slice") else arrow.array(values, kind)
        return found

    def _write_group(self) -> None:
        rows, arrow, schema = len(self._ids), self._arrow, self._writer.schema
        arrays = [_texts(arrow, self._ids)]
        for name, column_RZ in self._columns_RZ.items():
            values = _numbers(arrow, column_RZ[:rows])
            arrays.append(arrow.FixedSizeListArray.from_arrays(values, type=schema.field(name).type))
        for name in schema.names[len(arrays) :]:
            chunks = [chunk for piece in self._pieces[name] for chunk in getattr(piece, "chunks", [piece])]
            arrays.append(arrow.chunked_array(chunks, schema.field(name).type))
        try:
            self._writer.write_table(arrow.Table.from_arrays(arrays, schema=schema), row_group_size=rows)
        except OSError as error:
            raise self._failed(error) from None
        self._ids.clear()
        self._pieces.clear()

    def _complete(self, extra: Mapping[str, str]) -> None:
        """Write the last row group and the footer."""
        if self._ids:
            self._write_group()
        self._writer.add_key_value_metadata(dict(extra))
        self._writer.close()
        self._streams[1].close()


# `pyarrow.array` imports pandas where it is installed: 0.3 s of processor time and 40 MiB for nothing.


def _numbers(arrow: Any, values: NDArray[Any]) -> Any:
    """Return the values of a contiguous array as an Arrow array, which shares its memory."""
    kind = arrow.from_numpy_dtype(values.dtype)
    return arrow.Array.from_buffers(kind, values.size, [None, arrow.py_buffer(values)])


def _texts(arrow: Any, texts: Sequence[str]) -> Any:
    """Return texts as an Arrow array, or as one in chunks if they are too long for one."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    if ends[-1] > MAX_TEXT_BYTES:
        return arrow.array(texts, arrow.string())
    offsets = arrow.py_buffer(ends.astype(np.int32))
    return arrow.StringArray.from_buffers(len(texts), offsets, arrow.py_buffer(b"".join(encoded)))
