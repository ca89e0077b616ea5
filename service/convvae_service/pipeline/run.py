"""One run: it reads, encodes and writes batches at the same time, and keeps the order of the rows."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from convvae_service.images import (
    BadSource,
    FileDecoder,
    LeftOut,
    RejectedRow,
    Source,
    SourceChanged,
    decode_here,
)
from convvae_service.pipeline.encoded_batches import EncodedBatch, EncodedBatches
from convvae_service.pipeline.encoder import ImageEncoder
from convvae_service.pipeline.output import RunOutput
from convvae_service.pipeline.progress import Progress, SilentProgress
from convvae_service.pipeline.reading import PartEnd, Reading
from convvae_service.pipeline.sink import Columns
from convvae_service.pipeline.summary import RunSummary

__all__ = ["RunSettings", "embed", "write_batches"]

# Failed images that the summary names. The table of failed images has all of them.
MAX_NAMED = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """The settings of a run.

    Attributes:
        batch_rows: Images that are read, decoded and encoded together.
        threads: Number of batches that are read and encoded at the same time. An engine sets it.
        columns: The columns to compute.
        max_failed: Number of images that may fail to be read; None for any number.
    """

    batch_rows: int
    threads: int = 1
    columns: Columns = Columns()  # noqa: RUF009 - it is frozen
    max_failed: int | None = 0


class _Batches(Protocol):
    def __iter__(self) -> Iterator[EncodedBatch | PartEnd]: ...


class _Progressing(Protocol):
    def expected_rows(self) -> int | None: ...

    def left_out(self) -> LeftOut: ...


def embed(
    source: Source,
    encoder: ImageEncoder,
    output: RunOutput,
    settings: RunSettings,
    *,
    decode: FileDecoder = decode_here,
    progress: Progress | None = None,
) -> RunSummary:
    """Encode every row of `source` in threads and write it to `output`.

    Args:
        source: The images.
        encoder: The encoder. It is closed if the run fails.
        output: Where the rows go, and where the run begins. It is finished at the end.
        settings: The settings of the run.
        decode: Decodes image files.
        progress: Is told of each completed batch.

    Raises:
        PipelineError: The run failed; a file does not exist, and a folder has its complete parts.
    """
    reading = Reading(source, output, batch_rows=settings.batch_rows)
    batches = EncodedBatches(
        reading, encoder, columns=settings.columns, threads=settings.threads, decode=decode
    )
    try:
        return write_batches(
            batches, reading, source, output, max_failed=settings.max_failed, progress=progress
        )
    except BadSource as error:
        if not isinstance(error, SourceChanged):
            reading.check_unchanged()
        raise


def write_batches(
    encoded: AbstractContextManager[_Batches],
    reading: _Progressing,
    source: Source,
    output: RunOutput,
    *,
    max_failed: int | None,
    progress: Progress | None = None,
) -> RunSummary:
    """Write batches to `output`, whatever has encoded them.

    Args:
        encoded: The batches of the source from the start of the output on, in order, with the ends of parts.
        reading: Knows how many rows there are in all, and what was left out so far.
        source: The images.
        output: Where the rows go. It is finished at the end.
        max_failed: Number of images that may fail to be read; None for any number.
        progress: Is told of each batch that was written.

    Raises:
        PipelineError: The run failed; a file does not exist, and a folder has its complete parts.
    """
    started_s = time.perf_counter()
    progress = progress or SilentProgress()
    resumed_rows, resumed_failed = output.rows, output.failed
    rows = num_failed = 0
    empty = set(source.columns)
    failed: list[RejectedRow] = []
    progress.resume(resumed_rows + resumed_failed)
    # If the run fails, the output removes its file before the threads are joined.
    with encoded as batches, output:
        for batch in batches:
            if isinstance(batch, PartEnd):
                output.end_part(batch.end, batch.left_out)
                continue
            if batch.rejected:
                num_failed += len(batch.rejected)
                _check_failed(batch.rejected[0], resumed_failed + num_failed, max_failed)
                failed += batch.rejected[: MAX_NAMED - len(failed)]
                output.reject(batch.rejected)
            if batch.rows is not None:
                output.write(batch.rows)
                empty -= {name for name in empty if _has_value(batch.rows.kept[name])}
                rows += len(batch.rows.ids)
            progress.advance(
                len(batch.rows.ids) if batch.rows is not None else 0,
                len(batch.rejected),
                expected=reading.expected_rows(),
            )
        if not rows + resumed_rows:
            total = num_failed + resumed_failed
            example = f", such as {failed[0].id}: {failed[0].reason}" if failed else ""
            found = f"none of the {total} images of {source.name} can be read{example}"
            others = f"; {reading.left_out()}" if reading.left_out().counts else ""
            nothing = (
                f"no rows of {source.name} meet --where" if source.where else f"no images in {source.name}"
            )
            raise BadSource(found if total else f"{nothing}{others}")
        left_out = reading.left_out()
        num_bytes = output.finish(left_out.counts)
    return RunSummary(
        rows=rows,
        resumed=resumed_rows,
        failed=num_failed + resumed_failed,
        first_failed=tuple(failed),
        left_out=left_out,
        seconds=time.perf_counter() - started_s,
        num_bytes=num_bytes,
        repeated_ids=output.repeated.count,
        empty_columns=tuple(name for name in source.columns if name in empty) if rows else (),
    )


def _has_value(column: Any) -> bool:
    """Return whether a column, an Arrow array or a list, has a value that is not missing."""
    if hasattr(column, "null_count"):
        return bool(column.null_count < len(column))
    return any(value is not None for value in column)


def _check_failed(row: RejectedRow, num_failed: int, max_failed: int | None) -> None:
    """Raise `BadSource` if more images have failed than may."""
    if max_failed is None or num_failed <= max_failed:
        return
    many = f"{num_failed} images cannot be read, such as " if max_failed else ""
    hint = f"more than --on-error {max_failed}" if max_failed else "--on-error skip leaves such files out"
    raise BadSource(f"{many}{row.id}: {row.reason} ({hint})")
