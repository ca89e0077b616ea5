"""A result in Parquet files, opened for reading."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convvae_service.pipeline.parquet_sink import import_pyarrow
from convvae_service.pipeline.result_rows import BadResult, Result

__all__ = ["ENCODER_KEYS", "open_parquet"]

# What every sink stores about its encoder. Vectors of two encoders cannot be compared.
ENCODER_KEYS = (
    "convvae.model",
    "convvae.model_version",
    "convvae.precision",
    "convvae.encoder_sha256",
    "convvae.latent_dim",
    "convvae.image",
)


def open_parquet(files: Sequence[Path]) -> Result:
    """Open Parquet files of one run.

    Raises:
        BadResult: One is damaged, or of another encoder or other columns than the first.
    """
    arrow = import_pyarrow()

    def read(columns: Sequence[str], rows: int) -> Iterator[Any]:
        for path in files:
            try:
                with path.open("rb") as stream:
                    yield from arrow.parquet.ParquetFile(stream).iter_batches(rows, columns=list(columns))
            except (arrow.ArrowException, OSError) as error:
                raise BadResult(f"{path.name} is damaged: {error}") from None

    rows, first = 0, None
    for file in files:
        try:
            with file.open("rb") as stream:
                opened = arrow.parquet.ParquetFile(stream)
                rows, schema = rows + opened.metadata.num_rows, opened.schema_arrow
        except (arrow.ArrowException, OSError) as error:
            raise BadResult(f"{file.name} is not a Parquet file, or is damaged: {error}") from None
        first = schema if first is None else first
        if not schema.equals(first) or _encoder(schema) != _encoder(first):
            raise BadResult(f"{file.name} is of another run than {files[0].name}: encoder or columns differ")
    assert first is not None
    return Result(files, rows, _metadata(first), first, read)


def _metadata(schema: Any) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}


def _encoder(schema: Any) -> list[str | None]:
    metadata = _metadata(schema)
    return [metadata.get(key) for key in ENCODER_KEYS]
