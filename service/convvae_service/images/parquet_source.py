"""A source of images in a Parquet file: a column of image files, as Hugging Face has it, or of paths."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from convvae_service.images.file_rows import FileRows
from convvae_service.images.header import InvalidImage
from convvae_service.images.location import Location, first_line
from convvae_service.images.packages import import_package
from convvae_service.images.parquet_columns import find_image_column, is_text, with_plain_types
from convvae_service.images.source import BadSource, Source, SourceOptions
from convvae_service.images.where import Condition

__all__ = ["ParquetShard", "open_parquet_source"]

# The encoded images that are read at once.
_MAX_READ_BYTES = 8 << 20
_MAX_READ_ROWS = 4096
_BUFFER_BYTES = 1 << 20
# The name of the column of row numbers: no other column has it.
_NUMBERS = "\0row"


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Name the file in errors of Arrow."""
    arrow = import_package("pyarrow")
    try:
        yield
    except arrow.ArrowNotImplementedError as error:
        raise BadSource(f"{name} cannot be read: {first_line(error)}") from None
    except (arrow.ArrowException, OSError, EOFError, UnicodeError) as error:
        raise BadSource(f"{name} is damaged or truncated: {first_line(error)}") from None


class ParquetShard:
    """The rows of one file that meet the condition; see `Shard`.

    The id of a row is in the column that `options` names, or else `<file name>/<row number>`.
    """

    def __init__(self, location: Location, options: SourceOptions) -> None:
        self.name = location.name
        self.options = options
        self.location = location
        self._where: Any = None
        self._where_columns: list[str] = []
        with self.open_file() as file, reading(self.name):
            stored = file.schema_arrow
            self.num_bytes = location.state().size
            self.stored_rows = file.metadata.num_rows
            self.rows: int | None = None if options.where else self.stored_rows
            num_bytes = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
            self.row_bytes = num_bytes / max(1, self.stored_rows)
        self.image = find_image_column(stored, options.image_column, self.name)
        # Types that not all of Arrow computes with are converted when they are read.
        self.schema = with_plain_types(stored, self.image.name)
        self._check_columns()

    def _check_columns(self) -> None:
        options, arrow = self.options, import_package("pyarrow")
        condition = Condition(options.where) if options.where else None
        known = self.schema.names
        asked = [("--keep", name) for name in options.keep]
        if condition is not None:
            self._where_columns = condition.columns
            asked += [("--where", name) for name in condition.columns]
        asked += [("--id-column", options.id_column)] if options.id_column else []
        for flag, name in asked:
            if (count := known.count(name)) != 1:
                number = count or "no"
                raise BadSource(
                    f"{self.name} has {number} column{'s' * (count > 1)} {name!r} for {flag}: it has"
                    f" {', '.join(known)}"
                )
        if options.id_column:
            kind = self.schema.field(options.id_column).type
            kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
            if not (arrow.types.is_integer(kind) or is_text(kind)):
                raise BadSource(
                    f"{self.name}: the ids in {options.id_column!r} are {kind}: not text or integers"
                )
        if condition is not None:
            self._where = condition.expression(self.schema)
            with reading(self.name):
                try:
                    self.schema.empty_table().select(condition.columns).filter(self._where)
                except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError, TypeError) as error:
                    raise BadSource(f"--where does not fit {self.name}: {first_line(error)}") from None

    @contextmanager
    def open_file(self) -> Iterator[Any]:
        """Open the file with pyarrow."""
        parquet = import_package("pyarrow.parquet")
        source = self.location.open_arrow()
        try:
            with reading(self.name):
                file = parquet.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            yield file
        finally:
            source.close()

    def stamp(self) -> str:
        """Return the state of the file."""
        return str(self.location.state())

    def count(self) -> int:
        """Return the number of rows that meet the condition, whose columns are read."""
        if self._where is None:
            return int(self.stored_rows)
        with self.open_file() as file:
            return sum(int(self._mask(file, group).true_count) for group in range(file.num_row_groups))

    def open(self, start: int) -> "_ParquetCursor":
        """Return a cursor at a row; see `Shard`."""
        return _ParquetCursor(self, start)

    def tables(self, start: int) -> Iterator[Any]:
        """Yield the rows from `start` on, in tables with a column of row numbers first."""
        arrow, options = import_package("pyarrow"), self.options
        columns = list(dict.fromkeys([self.image.name, *options.keep, *filter(None, [options.id_column])]))
        step = int(max(1, min(_MAX_READ_ROWS, _MAX_READ_BYTES / max(1.0, self.row_bytes))))
        with self.open_file() as file:
            first = passed = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                mask = self._mask(file, group)
                kept = size if mask is None else mask.true_count
                if passed + kept <= start:
                    passed, first = passed + kept, first + size
                    continue
                row = 0
                with reading(self.name):
                    for batch in file.iter_batches(step, row_groups=[group], columns=columns):
                        table = self._plain(arrow.Table.from_batches([batch]))
                        numbers = arrow.array(range(first + row, first + row + len(table)), arrow.int64())
                        table = table.add_column(0, _NUMBERS, numbers)
                        if mask is not None:
                            table = table.filter(mask.slice(row, len(batch)))
                        row += len(batch)
                        skipped = max(0, min(len(table), start - passed))
                        passed += len(table)
                        if skipped < len(table):
                            yield table.slice(skipped)
                first += size

    def _mask(self, file: Any, group: int) -> Any:
        """Return which rows of a row group meet the condition, or None if there is none."""
        if self._where is None:
            return None
        arrow = import_package("pyarrow")
        with reading(self.name):
            table = self._plain(file.read_row_group(group, columns=self._where_columns))
            numbers = arrow.array(range(len(table)), arrow.int64())
            chosen = table.add_column(0, _NUMBERS, numbers).filter(self._where).column(0).to_numpy()
        mask = np.zeros(len(table), bool)
        mask[chosen] = True
        return arrow.array(mask)

    def _plain(self, table: Any) -> Any:
        """Return a table of this file, checked, with the types of `schema`."""
        table.validate(full=True)
        schema = import_package("pyarrow").schema([self.schema.field(name) for name in table.column_names])
        return table if schema.types == table.schema.types else table.cast(schema)

    def as_rows(self, table: Any) -> FileRows:
        """Return a table as rows."""
        options, image = self.options, self.image
        stem = self.name.removesuffix(self.location.suffix)
        ids = [f"{stem}/{number}" for number in table.column(0).to_pylist()]
        named = table.column(options.id_column).to_pylist() if options.id_column else ids
        values = table.column(image.name).combine_chunks()

        def content(index: int) -> bytes:
            if named[index] is None:
                raise InvalidImage("the row has no id")
            return image.content(values[index], self.location, max_pixels=options.max_pixels)

        shown = [given if name is None else str(name) for name, given in zip(named, ids, strict=True)]
        kept = {name: table.column(name) for name in options.keep}
        return FileRows(shown, content, options.max_pixels, kept)


class _ParquetCursor:
    left_out: Mapping[str, int] = {}

    def __init__(self, shard: ParquetShard, start: int) -> None:
        self._shard = shard
        self._tables = shard.tables(start)
        self._table: Any = None
        self._next = 0

    @property
    def fraction(self) -> float:
        """The part of the file's rows that was passed."""
        return float(self._next / max(1, self._shard.stored_rows))

    def take(self, count: int) -> FileRows | None:
        """Return the next rows; see `Cursor`."""
        if self._table is None or not len(self._table):
            self._table = next(self._tables, None)
            if self._table is None:
                return None
        rows = self._shard.as_rows(self._table.slice(0, count))
        self._next = self._table.column(0)[len(rows) - 1].as_py() + 1
        self._table = self._table.slice(count)
        return rows

    def close(self) -> None:
        """Close the file."""
        self._tables.close()  # type: ignore[attr-defined]
        self._table = None


def open_parquet_source(location: Location, options: SourceOptions) -> Source:
    """Open a Parquet file.

    Raises:
        BadSource: It is damaged or truncated, has no column of images, or lacks a column that is asked for.
    """
    shard = ParquetShard(location, options)
    # Programs that write shards write empty ones too.
    if shard.rows == 0 and not options.prefix:
        raise BadSource(f"{shard.name} has no rows")
    columns = {name: shard.schema.field(name).type for name in options.keep}
    return Source(name=shard.name, shards=[shard], columns=columns, where=options.where)
