"""The pool of workers when Ray loses some: each row comes once, and a run without progress ends."""

from collections.abc import Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from convvae_service.images import RejectedRow
from convvae_service.pipeline.distributed.pieces import TO_END, Piece
from convvae_service.pipeline.distributed.pool import Pool
from convvae_service.pipeline.distributed.worker import Item, PlacedBatch, ShardEnd
from convvae_service.pipeline.encoded_batches import EncodedBatch
from convvae_service.pipeline.errors import RunFailed
from convvae_service.pipeline.journal import Position

# Two shards of 6 and 2 rows, in batches of 2.
PIECES = [Piece(0, 0, 4), Piece(0, 4, TO_END), Piece(1, 0, TO_END)]
ROWS = [(0, row) for row in range(0, 6, 2)] + [(1, 0)]
JOB: Any = None


class RayError(Exception):
    """The base of Ray's exceptions."""


class RayTaskError(RayError):
    """An exception in a worker."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a traceback")
        self.cause = cause


class RayActorError(RayError):
    """The death of a worker."""

    def __init__(self, text: str = "died", *, actor_init_failed: bool = False) -> None:
        super().__init__(text)
        self.actor_init_failed = actor_init_failed


EXCEPTIONS = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, RayActorError=RayActorError)


def items_of(piece: Piece) -> Iterator[Item]:
    """Yield what a worker makes of a piece."""
    lengths = {0: 6, 1: 2}
    end = lengths[piece.shard] if piece.rows == TO_END else piece.first + piece.rows
    for row in range(piece.first, end, 2):
        rejected = RejectedRow("a", "b"), RejectedRow("c", "d", 1)
        yield PlacedBatch(Position(piece.shard, row), EncodedBatch(None, rejected))
    if piece.rows == TO_END:
        yield ShardEnd({})


class FragilePool(Pool):
    """A pool whose attempts end after so many items, each with an error."""

    def __init__(self, *ends: tuple[int, Exception]) -> None:
        ray = cast("ModuleType", SimpleNamespace(exceptions=EXCEPTIONS))
        super().__init__(ray, workers=2, threads=1, has_gpu=False)
        self._ends = list(ends)
        self.attempts: list[Sequence[Piece]] = []

    def _results(self, job: Any, pieces: Sequence[Piece]) -> Iterator[Item]:
        del job
        self.attempts.append(pieces)
        number, error = self._ends.pop(0) if self._ends else (99, None)
        for piece in pieces:
            for item in items_of(piece):
                if not number:
                    assert error is not None
                    raise error
                number -= 1
                yield item
        if error is not None:
            raise error


def found(items: Sequence[Item]) -> list[tuple[int, int]]:
    return [(item.position.shard, item.position.row) for item in items if isinstance(item, PlacedBatch)]


@pytest.mark.parametrize("end", range(7))
def test_every_row_comes_once_wherever_workers_are_lost(end: int) -> None:
    """Batches of a piece that is done again are not given twice, and complete pieces are not done again."""
    pool = FragilePool((end, RayActorError()))
    items = list(pool.items(JOB, PIECES))
    assert found(items) == ROWS
    assert sum(isinstance(item, ShardEnd) for item in items) == 2
    assert pool.attempts[0] == PIECES
    done = {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3}[end]
    assert pool.attempts[1:] == ([PIECES[done:]] if done < 3 else [])


def test_losses_count_from_the_last_progress() -> None:
    """A long run may lose workers many times; four times at the same batch end it with Ray's reason."""
    pool = FragilePool(*[(0, RayActorError()), (0, RayActorError()), (2, RayActorError())] * 3)
    assert found(list(pool.items(JOB, PIECES))) == ROWS
    pool = FragilePool((1, RayActorError()), *[(1, RayActorError("the reason"))] * 3)
    items = pool.items(JOB, PIECES)
    assert found([next(items)]) == ROWS[:1]
    with pytest.raises(RunFailed, match=r"^Ray lost workers 4 times at the same images: the reason$"):
        next(items)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RayTaskError(KeyError("x")), "Ray: KeyError: 'x'"),
        (
            RayActorError("Traceback\n  File\nImportError: no x", actor_init_failed=True),
            "Ray: ImportError: no x",
        ),
        (RuntimeError("odd.\n\tmore"), "Ray: odd"),
    ],
)
def test_exceptions_are_not_tried_again(error: Exception, message: str) -> None:
    """An exception in a worker, or of Ray Data itself, would come again."""
    pool = FragilePool((1, error))
    with pytest.raises(RunFailed) as caught:
        list(pool.items(JOB, PIECES))
    assert str(caught.value) == message
    assert len(pool.attempts) == 1


def test_results_that_are_lost_with_their_node_are_made_again() -> None:
    """A task that fails since its input is lost has raised nothing itself."""
    pool = FragilePool((2, RayTaskError(RayError("lost"))), (1, RayError("object lost")))
    assert found(list(pool.items(JOB, PIECES))) == ROWS


def test_the_death_of_a_worker_has_its_reason() -> None:
    """Ray names the worker first, and may say at the end that it never ran."""
    text = "The actor died.\n\tclass_name: W\n\tpid: 3\nIts process has died.\nThe actor never ran."
    pool = FragilePool(*[(0, RayActorError(text))] * 4)
    with pytest.raises(RunFailed, match=r"images: Its process has died$"):
        list(pool.items(JOB, PIECES))


def test_nothing_is_started_without_pieces() -> None:
    """A run that is resumed after its last row has none."""
    pool = FragilePool()
    assert list(pool.items(JOB, [])) == []
    assert pool.attempts == []
