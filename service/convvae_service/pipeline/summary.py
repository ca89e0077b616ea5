"""The summary of a run: as a record, as one line, and as JSON."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from convvae_service.images import LeftOut, RejectedRow, printable
from convvae_service.pipeline.encoder import EncoderInfo

__all__ = ["RunSummary", "summary_json", "summary_line"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """The result of a run.

    Attributes:
        rows: Number of rows written by this run.
        resumed: Number of rows that runs before had written.
        failed: Number of images that could not be read, in all runs.
        first_failed: The first of them in this run.
        left_out: Entries of folders and archives that were not rows.
        seconds: Wall time of this run.
        num_bytes: Size of the result.
        repeated_ids: Number of ids that several rows have.
        empty_columns: Names of kept columns that have no value in the rows of this run.
    """

    rows: int
    resumed: int
    failed: int
    first_failed: tuple[RejectedRow, ...]
    left_out: LeftOut
    seconds: float
    num_bytes: int
    repeated_ids: int = 0
    empty_columns: tuple[str, ...] = ()


def summary_line(summary: RunSummary, info: EncoderInfo, path: Path) -> str:
    """Return the summary as one line."""
    resumed = f" after {summary.resumed:,} resumed" if summary.resumed else ""
    return (
        f"{summary.rows:,} row{'s' * (summary.rows != 1)} in {summary.seconds:.1f} s"
        f" ({summary.rows / summary.seconds:,.0f} rows/s)"
        f"{resumed}, {summary.failed:,} skipped, by {info.input.model}@{info.version} {info.precision}:"
        f" {printable(str(path))} ({decimal(summary.num_bytes)})"
    )


def summary_json(summary: RunSummary, info: EncoderInfo, path: Path) -> str:
    """Return the summary as one JSON object, with the first 1,000 images that could not be read."""
    return json.dumps(
        {
            "file": str(path),
            "rows": summary.rows + summary.resumed,
            "resumed": summary.resumed,
            "seconds": round(summary.seconds, 3),
            "rows_per_s": round(summary.rows / summary.seconds, 1),
            "bytes": summary.num_bytes,
            "model": info.input.model,
            "version": info.version,
            "precision": info.precision,
            "skipped": summary.failed,
            "repeated_ids": summary.repeated_ids,
            "empty_columns": list(summary.empty_columns),
            "left_out": dict(summary.left_out.counts),
            "skipped_rows": [{"id": row.id, "reason": row.reason} for row in summary.first_failed],
        }
    )
