"""A result in a folder: numbered Parquet parts, a journal, and at the end a description of all of it.

    part-00000.parquet …       rows in the order of the source
    _failed/part-00000.parquet the images of a part that could not be read, if there are any
    _journal.jsonl             the parts so far; see `Journal`
    _result.json               rows, parts and metadata, when the result is complete

A part is written under a hidden name, made durable, renamed, and then named in the journal. So a part that
the journal does not name is written again.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from convvae_service.images import RejectedRow
from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.duplicate_ids import DuplicateIds, duplicate_ids
from convvae_service.pipeline.errors import BadSink, RunFailed
from convvae_service.pipeline.failed_table import write_failed
from convvae_service.pipeline.journal import JOURNAL_FILE, Job, Journal, PartRecord, Position, part_name
from convvae_service.pipeline.parquet_sink import ParquetSink
from convvae_service.pipeline.sink import EncodedRows, Provenance

__all__ = ["FAILED_FOLDER", "RESULT_FILE", "PartedOutput", "check_own_folder"]

RESULT_FILE = "_result.json"
FAILED_FOLDER = "_failed"
_PART = re.compile(r"part-[0-9]{5,}\.parquet|\.(part-|_result).*\.unfinished")
_MAX_NAMED = 20


class PartedOutput:
    """The folder of a result as an output; see `RunOutput`.

    Args:
        folder: The folder. It is created if it does not exist.
        provenance: What each part stores as metadata.
        job: What the result is made of.
        part_rows: Number of images of the source for each part.
        resume: Whether to continue a result that is there.
        overwrite: Whether to remove a result that is there.

    Raises:
        BadSink: The folder cannot be written, is of another job or encoder, or is written by another run.
    """

    def __init__(
        self,
        folder: Path,
        provenance: Provenance,
        job: Job,
        *,
        part_rows: int,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.part_rows = part_rows
        self._folder = folder
        self._provenance = provenance
        self._sink: ParquetSink | None = None
        self._rows = 0
        self._failed: list[RejectedRow] = []
        self.failed_table = f"{folder.name}/{FAILED_FOLDER}"
        self.repeated = DuplicateIds(0, ())
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise BadSink(f"{str(folder)!r} cannot be created: {error.strerror}") from None
        if overwrite:
            check_own_folder(folder)
        self._journal = Journal(folder, anew=overwrite)
        try:
            if self._journal.job is None:
                # The description first: the rest without it is no result.
                (folder / RESULT_FILE).unlink(missing_ok=True)
                self._remove_others(())
                self._journal.begin(job)
            elif not resume:
                raise BadSink(f"{folder.name} was written by another run meanwhile")
            else:
                self._journal.job.check_same(job, folder.name)
                self._check_parts()
        except OSError as error:
            self.close()
            raise RunFailed(f"{JOURNAL_FILE} cannot be written: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise
        parts = self._journal.parts
        self.start = parts[-1].end if parts else Position(0, 0)
        self.left_out: Mapping[str, int] = parts[-1].left_out if parts else {}

    @property
    def rows(self) -> int:
        """Number of rows that are on disk."""
        return sum(part.rows for part in self._journal.parts)

    @property
    def failed(self) -> int:
        """Number of images that could not be read, in the parts that are on disk."""
        return sum(part.failed for part in self._journal.parts)

    @property
    def kept(self) -> str:
        """What is on disk if the run ends now."""
        parts = len(self._journal.parts)
        if not self._journal.is_in_place():
            return ""
        if not parts:
            return "no part is complete yet: --resume starts anew"
        return f"{self.rows:,} rows in {parts} part{'s' * (parts != 1)} are kept: --resume continues"

    def _check_parts(self) -> None:
        for part in self._journal.parts:
            path = self._folder / part.part
            if not path.is_file() or path.stat().st_size != part.num_bytes:
                state = "has another size" if path.exists() else "is missing"
                raise BadSink(
                    f"{self._folder.name}/{part.part} {state}, so the result cannot be continued: give"
                    " --force to start anew"
                )

    def write(self, rows: EncodedRows) -> None:
        """Append rows to the part."""
        self._open_part().write(rows)
        self._rows += len(rows.ids)

    def reject(self, rows: Sequence[RejectedRow]) -> None:
        """Append images that could not be read to the part."""
        self._failed += rows

    def _part_name(self) -> str:
        return part_name(len(self._journal.parts))

    def _open_part(self) -> ParquetSink:
        if self._sink is None:
            self._journal.check_place()
            path = self._folder / self._part_name()
            # It may be there, if a run was killed before it wrote the line of the journal.
            sink = ParquetSink(path, self._provenance, overwrite=True, ends_run=False)
            self._sink = sink.__enter__()
        return self._sink

    def end_part(self, end: Position, left_out: Mapping[str, int]) -> None:
        """Make the part durable, and name it in the journal."""
        self._journal.check_place()
        name = self._part_name()
        failed = self._folder / FAILED_FOLDER / name
        if self._failed:
            write_failed(failed, self._failed)
        else:
            failed.unlink(missing_ok=True)
        sink = self._open_part()
        num_bytes = sink.finish({"convvae.rows": str(self._rows), "convvae.skipped": str(len(self._failed))})
        self._close_part()
        record = PartRecord(
            part=name,
            num_bytes=num_bytes,
            rows=self._rows,
            failed=len(self._failed),
            end=end,
            left_out=dict(left_out),
        )
        try:
            self._journal.add(record)
        except OSError as error:
            raise RunFailed(f"{JOURNAL_FILE} cannot be written: {error.strerror or error}") from None
        self._rows = 0
        self._failed.clear()

    def finish(self, left_out: Mapping[str, int]) -> int:
        """Remove what the journal does not name, and write the description of the result."""
        self._journal.check_place()
        parts = self._journal.parts
        self._remove_others([part.part for part in parts])
        self.repeated = duplicate_ids([self._folder / part.part for part in parts])
        described: dict[str, Any] = {
            "rows": self.rows,
            "failed": self.failed,
            "left_out": dict(left_out),
            "duplicate_ids": {"count": self.repeated.count, "first": self.repeated.ids[:_MAX_NAMED]},
            "metadata": self._provenance.as_metadata(),
            "parts": [{"name": part.part, "rows": part.rows, "bytes": part.num_bytes} for part in parts],
        }
        file = AtomicFile(self._folder / RESULT_FILE, overwrite=True)
        try:
            file.path.write_text(json.dumps(described, indent=1) + "\n")
            file.publish()
        except OSError as error:
            raise RunFailed(f"{RESULT_FILE} cannot be written: {error.strerror or error}") from None
        finally:
            file.remove()
        return sum(part.num_bytes for part in parts)

    def _remove_others(self, names: Sequence[str]) -> None:
        """Remove the parts but these, and what killed runs have left."""
        for folder in (self._folder, self._folder / FAILED_FOLDER):
            for path in folder.iterdir() if folder.is_dir() else ():
                if _PART.fullmatch(path.name) and path.name not in names:
                    path.unlink()
        with suppress(OSError):  # it has files
            (self._folder / FAILED_FOLDER).rmdir()

    def _close_part(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.__exit__(None, None, None)

    def close(self) -> None:
        """Remove the unfinished part, and release the journal."""
        self._close_part()
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_own_folder(folder: Path) -> None:
    """Check that a folder has nothing but a result, so that it may be replaced.

    Raises:
        BadSink: It has other files.
    """
    own = (JOURNAL_FILE, RESULT_FILE, FAILED_FOLDER)
    others = [
        path.name for path in folder.iterdir() if path.name not in own and not _PART.fullmatch(path.name)
    ]
    if others:
        raise BadSink(f"{str(folder)!r} is not a result of convvae-embed alone: it has {others[0]!r}")
