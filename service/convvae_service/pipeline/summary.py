"""The summary of a run: as a record, as one line, and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from convvae_service.images import RejectedRow, printable
from convvae_service.pipeline.encoder import EncoderInfo

__all__ = ["RunSummary", "summary_json", "summary_line"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The result of a run.

    Attributes:
        rows: Number of rows written.
        skipped: The rows that could not be read.
        left_out: Number of entries of a folder that were not rows, by kind.
        seconds: Wall time.
        num_bytes: Size of the sink.
    """

    rows: int
    skipped: tuple[RejectedRow, ...]
    left_out: Mapping[str, int]
    seconds: float
    num_bytes: int


def summary_line(summary: RunSummary, info: EncoderInfo, path: Path) -> str:
    """Return the summary as one line."""
    return (
        f"{summary.rows:,} rows in {summary.seconds:.1f} s ({summary.rows / summary.seconds:,.0f} rows/s),"
        f" {len(summary.skipped):,} skipped, by {info.input.model}@{info.version} {info.precision}:"
        f" {printable(str(path))} ({decimal(summary.num_bytes)})"
    )


def summary_json(summary: RunSummary, info: EncoderInfo, path: Path) -> str:
    """Return the summary as one JSON object, with every skipped row."""
    return json.dumps(
        {
            "file": str(path),
            "rows": summary.rows,
            "seconds": round(summary.seconds, 3),
            "rows_per_s": round(summary.rows / summary.seconds, 1),
            "bytes": summary.num_bytes,
            "model": info.input.model,
            "version": info.version,
            "precision": info.precision,
            "skipped": len(summary.skipped),
            "left_out": dict(summary.left_out),
            "skipped_rows": [{"id": row.id, "reason": row.reason} for row in summary.skipped],
        }
    )
