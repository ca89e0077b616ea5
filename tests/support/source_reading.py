"""All rows of a source in one batch."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np

from convvae_service.images import ImageBatch, ModelInput, Shard, Source, UndecodedRows


def rows_of(shard: Shard, *, start: int = 0, count: int = 128) -> Iterator[UndecodedRows]:
    """Yield the rows of a shard from `start` on, `count` at once."""
    with closing(shard.open(start)) as cursor:
        while (rows := cursor.take(count)) is not None:
            assert 0 < len(rows) <= count
            yield rows


def read_source(source: Source, model_input: ModelInput, *, start: int = 0, count: int = 128) -> ImageBatch:
    """Return the rows of a source as one batch; `start` is the row of each shard to begin at."""
    batches = [
        rows.read(model_input) for shard in source.shards for rows in rows_of(shard, start=start, count=count)
    ]
    names = batches[0].kept if batches else {}
    return ImageBatch(
        ids=[row_id for batch in batches for row_id in batch.ids],
        images=np.concatenate([batch.images for batch in batches]),
        rejected=[row for batch in batches for row in batch.rejected],
        kept={name: [value for batch in batches for value in _values(batch.kept[name])] for name in names},
    )


def _values(column: object) -> list[object]:
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)  # type: ignore[call-overload,no-any-return]
