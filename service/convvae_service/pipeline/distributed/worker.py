"""A worker on Ray: an actor that opens the encoder once, and reads, decodes and encodes pieces of the source.

Ray is not imported here. The errors of a worker are items of its results, so that the run ends with their
message, and not with a traceback.
"""

import os
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import MANIFEST_FILE, Precision
from convvae_service.images import BadSource, Cursor, Shard, Source, SourceChanged, UndecodedRows
from convvae_service.pipeline.distributed.pieces import TO_END, Piece
from convvae_service.pipeline.encoded_batches import EncodedBatch, EncodedBatches, threads_for
from convvae_service.pipeline.encoder import EncoderInfo
from convvae_service.pipeline.errors import BadModel, PipelineError, RunFailed
from convvae_service.pipeline.journal import Position
from convvae_service.pipeline.local import LocalEncoder
from convvae_service.pipeline.sink import Columns

__all__ = ["Item", "PlacedBatch", "ShardEnd", "Worker", "WorkerJob"]

# Ray Data takes about 4 ms to store an object, so that many items are sent at once, but not many pictures.
_ITEMS_SENT = 16
_BYTES_SENT = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerJob:
    """What every worker does.

    Attributes:
        source: The images. Each worker opens the shards itself.
        current_folder: The folder that relative paths of the source start from.
        bundle: The folder of the version, `ROOT/MODEL/VERSION`.
        info: The encoder that it must have.
        device: `auto`, `cpu` or `cuda`.
        threads: Threads that decode. On a CPU, as many encode.
        batch_rows: Images that are read, decoded and encoded together.
        columns: The columns to compute.
    """

    source: Source
    current_folder: str
    bundle: Path
    info: EncoderInfo
    device: str
    threads: int
    batch_rows: int
    columns: Columns


@dataclass(frozen=True, slots=True)
class PlacedBatch:
    """A batch, and the position of its first image."""

    position: Position
    batch: EncodedBatch


@dataclass(frozen=True, slots=True)
class ShardEnd:
    """The end of a shard, and the entries in it that are not rows, by kind."""

    left_out: Mapping[str, int]


Item = PlacedBatch | ShardEnd | Exception


class Worker:
    """A callable that Ray makes in a process of its own. It never raises an error of ours; see `Item`."""

    def __init__(self, job: WorkerJob) -> None:
        self._job = job
        self._checked: set[int] = set()
        self._refusal: Exception | None = None
        with suppress(OSError):
            os.chdir(job.current_folder)
        try:
            self._encoder = _open_encoder(job)
        except PipelineError as error:
            self._refusal = BadModel(f"worker on {socket.gethostname()}: {error}")

    def __call__(self, pieces: Mapping[str, Any]) -> Iterator[dict[str, NDArray[np.object_]]]:
        """Yield the items of pieces, as rows of one object each: a list of items."""
        columns = (pieces[name].tolist() for name in Piece._fields)
        for values in zip(*columns, strict=True):
            for sent in _grouped(self._items(Piece(*values))):
                row = np.empty(1, np.object_)
                row[0] = sent
                yield {"items": row}

    def _items(self, piece: Piece) -> Iterator[Item]:
        if self._refusal is not None:
            yield self._refusal
            return
        try:
            yield from self._encoded(piece)
        except (PipelineError, BadSource) as error:
            yield error
        except OSError as error:
            yield RunFailed(
                f"worker on {socket.gethostname()}: {error.filename or 'input'}: {error.strerror or error}"
            )

    def _encoded(self, piece: Piece) -> Iterator[Item]:
        job, row = self._job, piece.first
        cursor = self._shard(piece.shard).open(piece.first)
        with EncodedBatches(
            _taken(cursor, piece.rows, job.batch_rows),
            self._encoder,
            columns=job.columns,
            threads=threads_for(job.source, self._encoder, decoders=job.threads),
        ) as batches:
            for batch in batches:
                assert isinstance(batch, EncodedBatch)
                yield PlacedBatch(Position(piece.shard, row), _compact(batch))
                row += len(batch)
        if piece.rows == TO_END:
            yield ShardEnd(dict(cursor.left_out))

    def _shard(self, index: int) -> Shard:
        """Return a shard after a check that it is the one that the run began with."""
        source = self._job.source
        shard = source.shards[index]
        if index not in self._checked:
            if shard.stamp() != source.stamps[index]:
                host = socket.gethostname()
                raise SourceChanged(f"{shard.name} has changed since the run began, or is another on {host}")
            self._checked.add(index)
        return shard


def _open_encoder(job: WorkerJob) -> LocalEncoder:
    if not (job.bundle / MANIFEST_FILE).is_file():
        raise BadModel(f"no bundle in {str(job.bundle)!r}: it must have the same path on every node")
    precision = cast("Precision", job.info.precision)
    encoder = LocalEncoder(job.bundle, device=job.device, precision=precision, threads=job.threads)
    if encoder.info != job.info:
        found, expected = encoder.info.sha256[:12], job.info.sha256[:12]
        raise BadModel(f"{str(job.bundle)!r} has encoder {found}, where the run began with {expected}")
    return encoder


def _taken(cursor: Cursor, count: int, batch_rows: int) -> Generator[UndecodedRows, None, None]:
    try:
        while count and (rows := cursor.take(batch_rows if count < 0 else min(batch_rows, count))):
            count -= len(rows) if count > 0 else 0
            yield rows
    finally:
        cursor.close()


def _grouped(items: Iterator[Item]) -> Iterator[list[Item]]:
    """Yield the items in groups that are sent at once."""
    group: list[Item] = []
    num_bytes = 0
    for item in items:
        group.append(item)
        num_bytes += _num_bytes(item)
        if len(group) == _ITEMS_SENT or num_bytes >= _BYTES_SENT:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _num_bytes(item: Item) -> int:
    """Return the bytes of the pictures and kept columns of an item. Its vectors are small."""
    if not isinstance(item, PlacedBatch) or item.batch.rows is None:
        return 0
    rows = item.batch.rows
    texts = [values for values in rows.kept.values() if isinstance(values, list)]
    arrays = sum(getattr(values, "nbytes", 0) for values in rows.kept.values())
    return arrays + sum(
        len(each) for each in chain(rows.thumbnails, *texts) if isinstance(each, (bytes, str))
    )


def _compact(batch: EncodedBatch) -> EncodedBatch:
    """Return the batch with kept columns of their own. A slice that is sent carries the whole Arrow array."""
    if batch.rows is None or not batch.rows.kept:
        return batch
    everything = list(range(len(batch.rows.ids)))
    kept = {
        name: values.take(everything) if hasattr(values, "take") else values
        for name, values in batch.rows.kept.items()
    }
    return replace(batch, rows=replace(batch.rows, kept=kept))
