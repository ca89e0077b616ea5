"""The table of the images that could not be read: a Parquet file with the columns `id` and `reason`."""

from collections.abc import Sequence
from pathlib import Path

from convvae_service.images import RejectedRow
from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.errors import RunFailed
from convvae_service.pipeline.parquet_sink import import_pyarrow
from convvae_service.pipeline.signals import defer_signals

__all__ = ["write_failed"]


def write_failed(path: Path, rows: Sequence[RejectedRow]) -> None:
    """Write the table, replacing a file of that name. It is on disk when this returns.

    Raises:
        RunFailed: It cannot be written.
    """
    arrow = import_pyarrow()
    table = arrow.table({"id": [row.id for row in rows], "reason": [row.reason for row in rows]})
    with defer_signals():
        try:
            path.parent.mkdir(exist_ok=True)
            file = AtomicFile(path, overwrite=True)
            try:
                with file.path.open("wb") as stream:
                    arrow.parquet.write_table(table, arrow.PythonFile(stream, "w"), compression="zstd")
                file.publish(ends_run=False)
            finally:
                file.remove()
        except OSError as error:
            raise RunFailed(f"{path.name} cannot be written: {error.strerror or error}") from None
