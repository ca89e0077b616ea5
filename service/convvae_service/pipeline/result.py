"""A result of bulk embedding, as those who read it see it: one file, or the parts of a folder.

Dimensions: B = rows of a batch, Z = latent dimension.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.pipeline.errors import PipelineError
from convvae_service.pipeline.parquet_sink import import_pyarrow
from convvae_service.pipeline.parts import RESULT_FILE

__all__ = ["BadResult", "Result", "open_result", "vectors"]

_BATCH_ROWS = 1 << 16


class BadResult(PipelineError):
    """The path is not a complete result of `convvae-embed run`."""


@dataclass(frozen=True, slots=True)
class Result:
    """A complete result.

    Attributes:
        files: Its Parquet files, in the order of the source.
        rows: Number of rows in all of them.
        metadata: The keys of docs/bulk-embedding.md, such as `convvae.model`.
        schema: The Arrow schema of the files.
    """

    files: Sequence[Path]
    rows: int
    metadata: Mapping[str, str]
    schema: Any

    def batches(self, columns: Sequence[str], *, rows: int = _BATCH_ROWS) -> Iterator[Any]:
        """Yield the rows, in order, as Arrow record batches of these columns, with at most `rows` rows."""
        arrow = import_pyarrow()
        for path in self.files:
            with path.open("rb") as stream:
                yield from arrow.parquet.ParquetFile(stream).iter_batches(rows, columns=list(columns))


def open_result(path: Path) -> Result:
    """Open a Parquet file or a folder that `convvae-embed run` has written.

    Raises:
        BadResult: It does not exist, is not complete, or was written by another program.
    """
    arrow = import_pyarrow()
    if path.is_dir():
        files = _parts(path)
    elif path.is_file():
        files = [path]
    else:
        raise BadResult(f"{str(path)!r} does not exist")
    rows = 0
    try:
        for file in files:
            with file.open("rb") as stream:
                read = arrow.parquet.ParquetFile(stream)
                rows += read.metadata.num_rows
                schema = read.schema_arrow
    except (arrow.ArrowException, OSError) as error:
        raise BadResult(f"{file.name} is not a Parquet file, or is damaged: {error}") from None
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    if "convvae.model" not in metadata:
        raise BadResult(f"{path.name} was not written by convvae-embed: it names no model")
    return Result(files, rows, metadata, schema)


def vectors(batch: Any, column: str = "embedding") -> NDArray[np.float32]:
    """Return a column of vectors of a record batch as float32 (B, Z)."""
    values = batch.column(column)
    flat_BZ = values.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
    return np.asarray(flat_BZ, np.float32)


def _parts(folder: Path) -> list[Path]:
    described = folder / RESULT_FILE
    try:
        parts = json.loads(described.read_text())["parts"]
        files = [folder / part["name"] for part in parts]
    except FileNotFoundError:
        raise BadResult(
            f"{str(folder)!r} is not a complete result: finish it with convvae-embed run … --resume"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise BadResult(f"{described.name} of {str(folder)!r} is damaged") from None
    for file in files:
        if not file.is_file():
            raise BadResult(f"{str(folder)!r} lacks {file.name}")
    if not files:
        raise BadResult(f"{str(folder)!r} has no rows")
    return files
