"""The rows of a result, whatever its files are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convvae_service.pipeline.errors import PipelineError

__all__ = ["BadResult", "Result"]

_BATCH_ROWS = 1 << 16


class BadResult(PipelineError):
    """The path is not a complete result of `convvae-embed run`."""


@dataclass(frozen=True, slots=True)
class Result:
    """A complete result.

    Attributes:
        files: Its files, in the order of the source.
        rows: Number of rows in all of them.
        metadata: The keys of docs/bulk-embedding.md, such as `convvae.model`.
        schema: The Arrow schema of its rows.
        read: Yields the rows, given the columns and the largest number of rows of a batch; see `batches`.
    """

    files: Sequence[Path]
    rows: int
    metadata: Mapping[str, str]
    schema: Any
    read: Callable[[Sequence[str], int], Iterator[Any]]

    def batches(self, columns: Sequence[str], *, rows: int = _BATCH_ROWS) -> Iterator[Any]:
        """Yield the rows, in order, as Arrow record batches of these columns, with at most `rows` rows.

        Raises:
            BadResult: A file is damaged.
        """
        return self.read(columns, rows)
