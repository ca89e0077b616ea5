"""A stage that doubles its rows, and calls of it."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from convvae_service.batching.batcher import Batcher
from convvae_service.batching.pending_call import PendingCall
from convvae_service.engine.stages import Rows, Stage

__all__ = ["MakeBatcher", "Recorder", "answer", "new_batcher", "result_of", "submit_running", "values"]

MakeBatcher = Callable[..., Batcher]


class Recorder:
    """A stage that doubles its rows, keeps its batches and their threads, and waits at the test's gate."""

    def __init__(self, *, gated: bool = False, poison: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.threads: list[str] = []
        self.began = threading.Event()
        self.gate = threading.Event()
        self.poison = poison
        if not gated:
            self.gate.set()
        self.stage = Stage("double", self.run)

    def run(self, rows: Rows) -> Rows:
        self.batches.append([int(value) for value in rows[0]])
        self.threads.append(threading.current_thread().name)
        self.began.set()
        assert self.gate.wait(10)
        if self.poison is not None and (rows[0] == self.poison).any():
            raise ValueError("poison")
        return (rows[0] * 2, rows[0].astype(np.float32)[:, None] + 0.5)


def values(*numbers: int) -> Rows:
    return (np.array(numbers, np.int64),)


def new_batcher(**changes: Any) -> Batcher:
    """Return a batcher of one lane and batches of four rows, but for `changes`."""
    limits = {"lanes": 1, "max_batch_rows": 4, "max_queued_rows": 100}
    return Batcher(**{**limits, **changes})


def result_of(call: PendingCall) -> Rows:
    """Wait for a call, and return its results or raise its error."""
    ended = threading.Event()
    call.add_done_callback(lambda _: ended.set())
    assert ended.wait(20)
    return call.result()


def answer(batcher: Batcher, stage: Stage, *numbers: int) -> list[int]:
    """Return the first results of a call with these values."""
    return list(result_of(batcher.submit(stage, values(*numbers)))[0].tolist())


def submit_running(batcher: Batcher, recorder: Recorder, *numbers: int) -> PendingCall:
    """Submit a call, and return it when a lane runs it and waits at the gate."""
    call = batcher.submit(recorder.stage, values(*numbers))
    assert recorder.began.wait(10)
    return call
