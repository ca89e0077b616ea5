"""Threads that decode: large files wait for room, and the oldest turn is known."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import pytest

from convvae_service.images import DecodingThreads

WAIT_S = 20.0


class Turns:
    """Turns that note their start, and end when they are let go."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self._changed = threading.Condition()
        self._open: set[str] = set()

    def __call__(self, name: str) -> Callable[[], None]:
        def turn() -> None:
            with self._changed:
                self.started.append(name)
                self._changed.notify_all()
                assert self._changed.wait_for(lambda: name in self._open, WAIT_S)

        return turn

    def end(self, *names: str) -> None:
        with self._changed:
            self._open.update(names)
            self._changed.notify_all()

    def wait_for(self, *names: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: set(names) <= set(self.started), WAIT_S), self.started


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def test_large_files_run_while_their_bytes_have_room(pool: ThreadPoolExecutor) -> None:
    """They start in order: a file that would fit does not pass one that does not."""
    threads, turns = DecodingThreads(pool, max_large=3, max_bytes=100), Turns()
    sizes = {"a": 60, "b": 50, "c": 30, "d": 200}
    ends = {name: threads.submit_large(turns(name), size) for name, size in sizes.items()}
    turns.wait_for("a")
    assert turns.started == ["a"]
    turns.end("a")
    turns.wait_for("b", "c")
    assert sorted(turns.started) == ["a", "b", "c"]
    turns.end("b", "c", "d")
    assert not wait(ends.values(), timeout=WAIT_S).not_done


def test_at_most_max_large_files_run(pool: ThreadPoolExecutor) -> None:
    """However small they are, a thread stays free for other turns."""
    threads, turns = DecodingThreads(pool, max_large=3, max_bytes=100), Turns()
    ends = [threads.submit_large(turns(name), 1) for name in "abcdef"]
    turns.wait_for(*"abc")
    small = threads.submit(turns("small"))
    turns.wait_for("small")
    assert len(turns.started) == 4
    turns.end("small", *"abcdef")
    assert not wait([small, *ends], timeout=WAIT_S).not_done


def test_the_oldest_turn_is_known(pool: ThreadPoolExecutor) -> None:
    """Its start is known while it runs, of small and large files."""
    now_s = 5.0
    threads, turns = DecodingThreads(pool, max_large=1, max_bytes=1, clock=lambda: now_s), Turns()
    assert threads.busy_since_s is None
    large = threads.submit_large(turns("large"), 1)
    turns.wait_for("large")
    now_s = 9.0
    small = threads.submit(turns("small"))
    turns.wait_for("small")
    assert threads.busy_since_s == 5.0
    turns.end("large")
    large.result(WAIT_S)
    assert threads.busy_since_s == 9.0
    turns.end("small")
    small.result(WAIT_S)
    assert threads.busy_since_s is None


def test_a_shutdown_cancels_what_waits() -> None:
    """Nobody waits for a large file that will not be decoded."""
    pool = ThreadPoolExecutor(2)
    threads, turns = DecodingThreads(pool, max_large=1, max_bytes=1), Turns()
    first, second, third = (threads.submit_large(turns(name), 1) for name in "abc")
    turns.wait_for("a")
    pool.shutdown(wait=False)
    turns.end("a")
    first.result(WAIT_S)
    for end in (second, third):
        with pytest.raises(CancelledError):
            end.result(WAIT_S)
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(turns("d"))
