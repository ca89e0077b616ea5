"""The output of a run: where its rows go, and how far a run before it has come.

A file is one piece: it appears at the end of the run, or not at all. A folder is written in parts, and a run
that was stopped continues after the last of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from convvae_service.images import RejectedRow
from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.duplicate_ids import DuplicateIds, duplicate_ids
from convvae_service.pipeline.failed_table import hidden_failed
from convvae_service.pipeline.journal import Position
from convvae_service.pipeline.signals import defer_signals
from convvae_service.pipeline.sink import EncodedRows, Sink

__all__ = ["FileOutput", "RunOutput", "failed_path"]


class RunOutput(Protocol):
    """Where the rows of a run go, inside a `with` block."""

    @property
    def start(self) -> Position:
        """The position of the source that the run begins at."""

    @property
    def rows(self) -> int:
        """Number of rows that are on disk from runs before."""

    @property
    def failed(self) -> int:
        """Number of images that could not be read in runs before."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """Number of entries, by kind, that are not rows, in the shards before `start`."""

    @property
    def part_rows(self) -> int | None:
        """Number of images of the source, readable or not, for each part. None writes one piece."""

    @property
    def kept(self) -> str:
        """What is on disk if the run ends now, as the end of a message, or ""."""

    @property
    def failed_table(self) -> str:
        """The name of the table of failed images, or of the folder of such tables."""

    @property
    def repeated(self) -> DuplicateIds:
        """Ids that several rows have, as far as they were looked for when the output was finished."""

    def write(self, rows: EncodedRows) -> None:
        """Append rows."""

    def reject(self, rows: Sequence[RejectedRow]) -> None:
        """Append images that could not be read."""

    def end_part(self, end: Position, left_out: Mapping[str, int]) -> None:
        """End the part, if there are parts. The next row is at `end`."""

    def finish(self, left_out: Mapping[str, int]) -> int:
        """Make the output complete, and return its size in bytes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def failed_path(path: Path) -> Path:
    """Return the name of the table of failed images beside a file."""
    return path.with_name(f"{path.stem}.failed.parquet")


class FileOutput:
    """One file, and beside it `NAME.failed.parquet` if images could not be read; see `RunOutput`."""

    start = Position(0, 0)
    left_out: Mapping[str, int] = {}
    part_rows = None
    kept = ""

    def __init__(self, path: Path, sink: Sink, *, overwrite: bool) -> None:
        self._path = path
        self._sink = sink
        self._overwrite = overwrite
        self._table: AtomicFile | None = None
        self._failed: list[RejectedRow] = []
        self._rows = 0
        self.rows = self.failed = 0
        self.repeated = DuplicateIds(0, ())
        self.failed_table = failed_path(path).name

    def write(self, rows: EncodedRows) -> None:
        """Append rows."""
        self._sink.write(rows)
        self._rows += len(rows.ids)

    def reject(self, rows: Sequence[RejectedRow]) -> None:
        """Append images that could not be read. They are held in memory until the end."""
        self._failed += rows

    def end_part(self, end: Position, left_out: Mapping[str, int]) -> None:
        """Do nothing: a file is one piece."""

    def finish(self, left_out: Mapping[str, int]) -> int:
        """Make the file and the table of failed images complete, and both visible or none."""
        del left_out
        path = failed_path(self._path)
        if self._failed:
            with defer_signals():
                self._table = hidden_failed(path, self._failed, overwrite=self._overwrite)
        counts = {"convvae.rows": str(self._rows), "convvae.skipped": str(len(self._failed))}
        num_bytes = self._sink.finish(counts, self._table)
        if self._overwrite and not self._failed:
            path.unlink(missing_ok=True)  # that of the result before
        if self._path.suffix.lower() == ".parquet":
            self.repeated = duplicate_ids([self._path])
        return num_bytes

    def __enter__(self) -> Self:
        self._sink.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.__exit__(kind, error, trace)
        if self._table is not None:
            self._table.remove()
