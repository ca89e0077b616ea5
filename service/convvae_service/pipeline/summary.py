"""The summary of a run: as a record, as one line, and as JSON."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from convvae_service.images import RejectedRow
from convvae_service.pipeline.encoder import EncoderInfo

__all__ = ["RunSummary", "summary_json", "summary_line"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The result of a run: rows written, rows skipped, seconds of wall time, and bytes of the sink."""

    rows: int
    skipped: tuple[RejectedRow, ...]
    seconds: float
    num_bytes: int


def summary_line(summary: RunSummary, info: EncoderInfo, path: Path) -> str:
    """Return the summary as one line."""
    return (
        f"{summary.rows:,} rows in {summary.seconds:.1f} s ({summary.rows / summary.seconds:,.0f} rows/s),"
        f" {len(summary.skipped):,} skipped, by {info.input.model}@{info.version} {info.precision}:"
        f" {path} ({decimal(summary.num_bytes)})"
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
            "skipped_rows": [{"id": row.id, "reason": row.reason} for row in summary.skipped],
        }
    )
