"""Ids that several rows of a result have, found without holding all ids in memory.

A hash of 8 bytes stands for each id. The hashes are divided into ranges, so that at most 4 million of them
are in memory at once, and each range reads the ids again. Ids with equal hashes are compared as texts.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.images import printable
from convvae_service.pipeline.errors import RunFailed
from convvae_service.pipeline.parquet_sink import import_pyarrow

__all__ = ["DuplicateIds", "duplicate_ids"]

MAX_HASHES = 1 << 22
_BATCH_ROWS = 1 << 16
# More ids than this are counted, but not named.
_MAX_NAMED = 1000


@dataclass(frozen=True, slots=True)
class DuplicateIds:
    """The ids that several rows have. As a string: their number and the first of them, or "".

    Attributes:
        count: Number of these ids.
        ids: The ids, sorted, at most 1,000 of them.
    """

    count: int
    ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"repeated ids: {self.count:,}, such as {printable(self.ids[0])}" if self.count else ""


def duplicate_ids(files: Sequence[Path]) -> DuplicateIds:
    """Return the ids that several rows of these Parquet files have.

    Raises:
        RunFailed: A file is damaged.
    """
    arrow = import_pyarrow()
    rows = sum(_num_rows(arrow, path) for path in files)
    ranges = max(1, -(-rows // MAX_HASHES))
    repeated: set[int] = set()
    for index in range(ranges):
        hashes = np.concatenate(
            [np.empty(0, np.int64), *(hashed[hashed % ranges == index] for _, hashed in _ids(arrow, files))]
        )
        hashes.sort()
        repeated.update(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not repeated:
        return DuplicateIds(0, ())
    counts: Counter[str] = Counter()
    chosen = np.fromiter(repeated, np.int64)
    for ids, hashed in _ids(arrow, files):
        counts.update(ids[index] for index in np.flatnonzero(np.isin(hashed, chosen)))
    found = sorted(row_id for row_id, count in counts.items() if count > 1)
    return DuplicateIds(len(found), tuple(found[:_MAX_NAMED]))


def _num_rows(arrow: Any, path: Path) -> int:
    with _opened(arrow, path) as file:
        return int(file.metadata.num_rows)


def _ids(arrow: Any, files: Sequence[Path]) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
    for path in files:
        with _opened(arrow, path) as file:
            # One column gains nothing from threads, and a system may refuse them.
            for batch in file.iter_batches(_BATCH_ROWS, columns=["id"], use_threads=False):
                ids = batch.column(0).to_pylist()
                yield ids, np.fromiter(map(hash, ids), np.int64, len(ids))


@contextmanager
def _opened(arrow: Any, path: Path) -> Iterator[Any]:
    try:
        # Arrow takes no name that is not UTF-8, so Python opens the file.
        with path.open("rb") as stream:
            yield arrow.parquet.ParquetFile(stream)
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RunFailed(f"{path.name} cannot be read again: {reason}") from None
