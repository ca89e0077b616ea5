"""The pool of workers: Ray Data hands them pieces, and gives the results back in the order of the pieces.

If a worker or a whole node is lost, the pool starts again with the pieces that are not complete. Ray could
start the lost worker alone. But its pieces would wait for it, and a lost node leaves no room for it.
"""

from collections.abc import Generator, Iterator, Sequence
from types import ModuleType
from typing import Any

from convvae_service.pipeline.distributed.cluster import reason_of
from convvae_service.pipeline.distributed.pieces import Piece
from convvae_service.pipeline.distributed.worker import Item, PlacedBatch, ShardEnd, Worker, WorkerJob
from convvae_service.pipeline.errors import RunFailed
from convvae_service.pipeline.journal import Position

__all__ = ["Pool"]

# A batch at which workers are lost so many times ends the run.
_MAX_LOSSES = 4
# Results are sent when they have so many bytes, or their piece ends.
_BLOCK_BYTES = 1 << 20


class Pool:
    """Workers that encode pieces.

    Args:
        ray: The module `ray`, connected to a cluster.
        workers: Their number.
        threads: The CPUs of each.
        has_gpu: Whether each has a GPU.
    """

    def __init__(self, ray: ModuleType, *, workers: int, threads: int, has_gpu: bool) -> None:
        self._ray: Any = ray
        self._workers = workers
        self._threads = threads
        self._has_gpu = has_gpu

    def items(self, job: WorkerJob, pieces: Sequence[Piece]) -> Generator[Item, None, None]:
        """Yield what the workers make of pieces, in the order of the pieces.

        Raises:
            RunFailed: Ray cannot go on.
        """
        if not pieces:
            return
        losses, position = 0, _start(pieces[0])
        while pieces:
            begun = position
            try:
                for item in self._results(job, pieces):
                    if isinstance(item, PlacedBatch):
                        if item.position < position:
                            continue  # it was given before workers were lost
                        position = Position(item.position.shard, item.position.row + len(item.batch))
                    elif isinstance(item, ShardEnd):
                        position = Position(position.shard + 1, 0)
                    yield item
                return
            except Exception as error:  # noqa: BLE001 - Ray's exceptions share no base class
                losses = 1 if position > begun else losses + 1
                if not self._is_loss(error):
                    raise RunFailed(f"Ray: {reason_of(error)}") from None
                if losses == _MAX_LOSSES:
                    text = f"Ray lost workers {losses} times at the same images"
                    raise RunFailed(f"{text}: {reason_of(error)}") from None
            pieces = _incomplete(pieces, position)

    def _is_loss(self, error: Exception) -> bool:
        """Return whether Ray has lost processes or results, and nothing in them has raised an exception."""
        errors = self._ray.exceptions
        if isinstance(error, errors.RayTaskError):
            return isinstance(error.cause, errors.RayError)
        if isinstance(error, errors.RayActorError):
            return not error.actor_init_failed
        return isinstance(error, errors.RayError)

    def _results(self, job: WorkerJob, pieces: Sequence[Piece]) -> Iterator[Item]:
        data = self._ray.data
        context = data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.target_max_block_size = _BLOCK_BYTES
        given = data.from_items([piece._asdict() for piece in pieces], override_num_blocks=len(pieces))
        encoded = given.map_batches(
            Worker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(self._workers, len(pieces))),
            num_cpus=self._threads,
            num_gpus=1 if self._has_gpu else None,
            max_restarts=0,
        )
        # `iter_batches` has threads that may still call Ray after the run has left the cluster. Ray would
        # then end the process.
        for bundle in encoded.iter_internal_ref_bundles():
            for block in self._ray.get([entry.ref for entry in bundle.blocks]):
                for sent in data.block.BlockAccessor.for_block(block).to_numpy("items"):
                    yield from sent


def _start(piece: Piece) -> Position:
    return Position(piece.shard, piece.first)


def _incomplete(pieces: Sequence[Piece], position: Position) -> Sequence[Piece]:
    """Return the pieces with rows from a position on."""
    ends = [*map(_start, pieces[1:]), Position(pieces[-1].shard + 1, 0)]
    return [piece for piece, end in zip(pieces, ends, strict=True) if end > position]
