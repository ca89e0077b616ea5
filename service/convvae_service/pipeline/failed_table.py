"""The table of the images that could not be read: a Parquet file with the columns `id` and `reason`."""

from collections.abc import Sequence
from pathlib import Path

from convvae_service.images import RejectedRow
from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.errors import RunFailed
from convvae_service.pipeline.parquet_sink import import_pyarrow
from convvae_service.pipeline.signals import defer_signals

__all__ = ["hidden_failed", "write_failed"]


def write_failed(path: Path, rows: Sequence[RejectedRow]) -> None:
    """Write the table, replacing a file of that name. It is on disk when this returns.

    Raises:
        RunFailed: It cannot be written.
    """
    with defer_signals():
        file = hidden_failed(path, rows, overwrite=True)
        try:
            file.publish(ends_run=False)
        except OSError as error:
            raise _failed(path, error) from None
        finally:
            file.remove()


def hidden_failed(path: Path, rows: Sequence[RejectedRow], *, overwrite: bool) -> AtomicFile:
    """Write the table to a file that is not visible yet. The caller publishes or removes it.

    Raises:
        RunFailed: It cannot be written.
    """
    arrow = import_pyarrow()
    table = arrow.table({"id": [row.id for row in rows], "reason": [row.reason for row in rows]})
    try:
        path.parent.mkdir(exist_ok=True)
        file = AtomicFile(path, overwrite=overwrite)
        try:
            with file.path.open("wb") as stream:
                arrow.parquet.write_table(table, arrow.PythonFile(stream, "w"), compression="zstd")
        except BaseException:
            file.remove()
            raise
    except OSError as error:
        raise _failed(path, error) from None
    return file


def _failed(path: Path, error: OSError) -> RunFailed:
    return RunFailed(f"{path.name} cannot be written: {error.strerror or error}")
