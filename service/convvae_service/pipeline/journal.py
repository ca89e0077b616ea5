"""The journal of a result that is written in parts: which part holds which rows of the source.

The first line names the job and its encoder. Each further line names a part that is on disk, and the position
of the source after it. A line counts when it is complete and on disk.
"""

import errno
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from convvae_service.pipeline.errors import BadSink, RunFailed

__all__ = ["JOURNAL_FILE", "Job", "Journal", "PartRecord", "Position", "part_name"]

JOURNAL_FILE = "_journal.jsonl"
JOURNAL_VERSION = 1


class Position(NamedTuple):
    """A row of a source: the index of its shard, and its number in the shard."""

    shard: int
    row: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a result is made of. A run can be resumed by the same job alone.

    Attributes:
        encoder: The metadata that every part stores: model, version, precision, sha256.
        settings: Columns and conditions, by the flag that sets them.
        shards: Name and stamp of each shard of the source.
    """

    encoder: Mapping[str, str]
    settings: Mapping[str, Any]
    shards: Sequence[Sequence[str]]

    @classmethod
    def parsed(cls, line: Mapping[str, Any]) -> "Job":
        """Return the job of the first line. Raise `ValueError` or `TypeError` if it is none."""
        job = cls(**line)
        pairs = [(name, stamp) for name, stamp in job.shards]
        if not all(isinstance(text, str) for text in (*job.encoder.values(), *chain(*pairs))):
            raise TypeError
        return job

    def check_same(self, other: "Job", name: str) -> None:
        """Check that `other`, which is asked for now, is this job.

        Raises:
            BadSink: It has another encoder, other settings, or a source that is another or has changed.
        """
        if self.encoder != other.encoder:
            raise BadSink(
                f"{name} was begun with {_encoder(self.encoder)}, and this run has {_encoder(other.encoder)}:"
                " give the same model, or another name for the result"
            )
        for flag, value in self.settings.items():
            if value != other.settings.get(flag):
                raise BadSink(
                    f"{name} belongs to another job: its {flag} is {value!r}, where this run has"
                    f" {other.settings.get(flag)!r}"
                )
        names, asked = [shard[0] for shard in self.shards], [shard[0] for shard in other.shards]
        if names != asked:
            pairs = zip([*names, "(none)"], [*asked, "(none)"], strict=False)
            one, two = next(pair for pair in pairs if pair[0] != pair[1])
            raise BadSink(f"{name} belongs to another job: its source is {one}, where this run has {two}")
        for before, now in zip(self.shards, other.shards, strict=True):
            if list(before) != list(now):
                raise BadSink(f"{now[0]} has changed since {name} was begun: give --force to start anew")


def _encoder(metadata: Mapping[str, str]) -> str:
    keys = ("model", "model_version", "precision", "encoder_sha256")
    model, version, precision, sha256 = (metadata.get(f"convvae.{key}", "?") for key in keys)
    return f"{model}@{version} {precision} (encoder {sha256[:12]})"


def part_name(number: int) -> str:
    """Return the name of a part's file, from 0 on."""
    return f"part-{number:05}.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRecord:
    """A part that is on disk.

    Attributes:
        part: Its file's name.
        num_bytes: Its size.
        rows: Number of its rows.
        failed: Number of images that could not be read.
        end: The position of the source after it.
        left_out: Number of entries, by kind, that are not rows, in all shards that end before `end`.
    """

    part: str
    num_bytes: int
    rows: int
    failed: int
    end: Position
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parsed(cls, line: Mapping[str, Any], before: "Sequence[PartRecord]") -> "PartRecord":
        """Return the record of a line after those before. Raise `ValueError` or `TypeError` if it is none."""
        record = cls(**{**line, "end": Position(*line["end"])})
        start = before[-1].end if before else Position(0, 0)
        counts = (record.num_bytes, record.rows, record.failed, *record.end, *record.left_out.values())
        is_next = record.part == part_name(len(before)) and record.end > start
        if not is_next or not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError
        return record


class Journal:
    """The journal of the folder of a result. It is locked until it is closed.

    Attributes:
        job: The job of the first line, or None if there is none yet.
        parts: The records of the parts so far.
    """

    def __init__(self, folder: Path, *, anew: bool = False) -> None:
        """Open the journal, or create it.

        Args:
            folder: The folder of the result.
            anew: Whether to empty a journal that is there.

        Raises:
            BadSink: Another run is writing it, or it cannot be read.
        """
        self._name = folder.name
        self._path = folder / JOURNAL_FILE
        try:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise BadSink(f"cannot write in {str(folder)!r}: {error.strerror}") from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise BadSink(f"another run is writing {folder.name}") from None
        except OSError:  # this file system has no locks
            pass
        self._stat = os.fstat(self._handle)
        self.job: Job | None = None
        self.parts: list[PartRecord] = []
        try:
            if anew:
                os.ftruncate(self._handle, 0)
            self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        # A line without its end was written when the run was killed: its part does not count.
        whole, _, torn = self._path.read_bytes().rpartition(b"\n")
        if torn:
            os.ftruncate(self._handle, len(whole) + 1 if whole else 0)
        os.lseek(self._handle, 0, os.SEEK_END)
        try:
            first, *others = [json.loads(line) for line in whole.splitlines()] or [None]
            if first is not None:
                if first.pop("journal") != JOURNAL_VERSION:
                    raise BadSink(f"{self._name} was written by another version of convvae-embed")
                self.job = Job.parsed(first)
            for line in others:
                self.parts.append(PartRecord.parsed(line, self.parts))
            if self.job and self.parts and self.parts[-1].end.shard > len(self.job.shards):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadSink(f"{self._name}/{JOURNAL_FILE} is damaged: give --force to start anew") from None

    def begin(self, job: Job) -> None:
        """Write the first line."""
        self.job = job
        self._append({"journal": JOURNAL_VERSION, **asdict(job)})

    def add(self, record: PartRecord) -> None:
        """Write the line of a part that is on disk."""
        self._append(asdict(record))
        self.parts.append(record)

    def is_in_place(self) -> bool:
        """Return whether the folder still has this journal. If not, another run may write there."""
        try:
            return os.path.samestat(self._path.stat(), self._stat)
        except OSError:
            return False

    def check_place(self) -> None:
        """Check that the folder still has this journal, before files of the result are written or removed.

        Raises:
            RunFailed: Somebody has removed or replaced it.
        """
        if not self.is_in_place():
            raise RunFailed(f"{self._name} was removed or replaced by another program during the run")

    def _append(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        start = os.lseek(self._handle, 0, os.SEEK_END)
        try:
            # One call, so that a signal does not divide the line.
            if os.write(self._handle, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._handle)
        except BaseException:
            os.ftruncate(self._handle, start)
            raise

    def close(self) -> None:
        """Release the lock. It may be called again."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
