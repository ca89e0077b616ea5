"""A disk that refuses to flush folders, as some network shares and FUSE file systems do."""

import os
import stat

import pytest

__all__ = ["refuse_folder_sync"]


def refuse_folder_sync(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let fsync of a folder fail with this `errno`; files are flushed as before."""
    fsync = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
