"""The child processes of a study: each trains one run at a time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from convvae_trainer.runs.lock import RunLock
from convvae_trainer.study.folder import StudyFolder
from convvae_trainer.study.replies import Reply

__all__ = ["Child", "Children"]

# A child that has no run left ends when its input does.
_END_WITHIN_S = 30.0


class Child:
    """A child process, and the run that it trains: `run` is its name, begun at `since_s` (monotonic)."""

    def __init__(self, folder: StudyFolder, lock: RunLock, *, threads: int, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self.process = subprocess.Popen(  # noqa: S603 - this interpreter, with paths of this study
                [sys.executable, "-m", "convvae_trainer.study.worker", str(folder.path), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # An error before the first run is in the log of that run.
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                # The lock ends when the last child has ended, also after this process was killed.
                pass_fds=(lock.handle,),
                # Ctrl-C reaches this process alone, which passes it on once.
                process_group=0,
            )
        self.run = ""
        self.since_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """The seconds since the run began."""
        return time.monotonic() - self.since_s

    def begin(self, run: str) -> None:
        """Have the child train a run."""
        self.run, self.since_s = run, time.monotonic()
        # A child that has ended is noticed when its answer is read.
        with suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.write(f"{run}\n")
            self.process.stdin.flush()

    def reply(self) -> Reply:
        """Return the answer of the child, which is there; a child that has ended answers why."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return Reply.from_line(line)
        return Reply(run=self.run, text=_end_text(self.process.wait()))

    def take_no_more(self) -> None:
        """Have the process end after its run."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None


class Children:
    """The child processes of a study, at most `jobs` of them.

    Args:
        folder: The folder of the study.
        lock: The lock of the folder, which the children inherit.
        jobs: The largest number of children.
        threads: CPU threads of each.
    """

    def __init__(self, folder: StudyFolder, lock: RunLock, *, jobs: int, threads: int) -> None:
        self._folder = folder
        self._lock = lock
        self._jobs = jobs
        self._threads = threads
        self._children: list[Child] = []

    @property
    def running(self) -> Mapping[str, Child]:
        """The children that train, by the name of the run."""
        return {child.run: child for child in self._children if child.run}

    @property
    def is_full(self) -> bool:
        """Whether no further run can begin now."""
        return len(self.running) >= self._jobs

    def begin(self, run: str) -> None:
        """Have a child train a run: one that has nothing to do, or a new one."""
        idle = next((child for child in self._children if not child.run), None)
        if idle is None:
            idle = Child(self._folder, self._lock, threads=self._threads, log=self._folder.log(run))
            self._children.append(idle)
        idle.begin(run)

    def replies(self, *, within_s: float) -> Iterator[tuple[Reply, float]]:
        """Yield the replies that arrive within this time, each with the seconds that its run took."""
        with DefaultSelector() as selector:
            for child in self.running.values():
                assert child.process.stdout is not None
                selector.register(child.process.stdout, EVENT_READ, child)
            for key, _ in selector.select(within_s):
                child = key.data
                reply, seconds = child.reply(), child.elapsed_s
                child.run = ""
                if child.has_ended:
                    self._children.remove(child)
                    _end(child)
                yield reply, seconds

    def stop(self) -> None:
        """Have all runs save a checkpoint, and wait for the end of all children."""
        for child in self._children:
            # A run whose last step is done goes on to its end, and its process then finds no other run.
            child.take_no_more()
            child.process.send_signal(signal.SIGTERM)
        for child in self._children:
            child.process.wait()

    @contextmanager
    def ended(self) -> Iterator[None]:
        """End all children after the block; if it fails, with checkpoints, and at a second signal at once."""
        try:
            yield
        except Exception:
            self.stop()
            raise
        except BaseException:
            for child in self._children:
                child.process.kill()
            raise
        finally:
            for child in self._children:
                _end(child)
            self._children.clear()


def _end(child: Child) -> None:
    process = child.process
    assert process.stdout is not None
    child.take_no_more()
    try:
        process.wait(_END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _end_text(code: int) -> str:
    """Return why a child ended without an answer."""
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps since memory ran out: fewer --jobs need less"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"
