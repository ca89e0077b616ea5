"""An event file of TensorBoard.

TensorBoard's own writer writes in a thread: there, an error ends the thread and cannot be handled.
"""

import io
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["EventFile"]

_VERSION = "brain.Event:2"


class EventFile:
    """A new event file in `folder`, which is made if it is absent.

    Args:
        folder: The folder.
        purge_step: TensorBoard drops the figures that earlier files have from this step on.

    Raises:
        ImportError: TensorBoard is not installed.
        OSError: The file cannot be written.
    """

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        now = int(time.time())
        self._path = folder / f"events.out.tfevents.{now:010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._path.touch()
        self._size = 0
        start = SessionLog(status=SessionLog.START)
        self._append([Event(file_version=_VERSION), Event(step=purge_step, session_log=start)])

    def write(self, summaries: list[Any], *, step: int) -> None:
        """Write summaries of one step. All of them are in the file at the end, or none.

        Raises:
            OSError: The file was removed or replaced, or the disk is full.
        """
        from tensorboard.compat.proto.event_pb2 import Event

        self._append([Event(step=step, summary=summary) for summary in summaries])

    def _append(self, events: list[Any]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        records = RecordWriter(buffer)
        for event in events:
            event.wall_time = time.time()
            records.write(event.SerializeToString())
        # Opened by name each time: otherwise a file that was removed would be written on unseen.
        with self._path.open("r+b", buffering=0) as file:
            file.seek(self._size)
            data = buffer.getvalue()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(self._size)
                raise
            self._size = file.tell()
