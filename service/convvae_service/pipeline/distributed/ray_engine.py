"""A run on Ray: workers read, decode and encode pieces of the source, and this process writes the result.

Ray Data hands the pieces to a pool of actors, gives their results back in order, and waits while results are
not taken. Parts and journal are those of every run.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import typer

from convvae_service.bundle import Precision
from convvae_service.engine.cpus import available_cpus
from convvae_service.images import LeftOut, Source, SourceChanged, left_out_of
from convvae_service.pipeline.distributed.cluster import Cluster, Node
from convvae_service.pipeline.distributed.pieces import plan_pieces
from convvae_service.pipeline.distributed.pool import Pool
from convvae_service.pipeline.distributed.worker import ShardEnd, WorkerJob
from convvae_service.pipeline.encoded_batches import EncodedBatch
from convvae_service.pipeline.errors import BadCluster, RunFailed
from convvae_service.pipeline.journal import Position
from convvae_service.pipeline.local import GPU_BATCH_ROWS, LocalEncoder, batch_rows_on_cpu
from convvae_service.pipeline.output import RunOutput
from convvae_service.pipeline.progress import Progress
from convvae_service.pipeline.reading import PartEnd
from convvae_service.pipeline.run import RunSettings, write_batches
from convvae_service.pipeline.summary import RunSummary

__all__ = ["RayEngine"]

_MAX_GPU_THREADS = 8
_MAX_NAMED_NODES = 4


class RayEngine:
    """Workers on a Ray cluster; see `RunEngine`.

    Args:
        bundle: `ROOT/MODEL/VERSION`, the same on every node.
        address: Address of the cluster; see `Cluster`.
        workers: Number of workers. None takes one for each GPU, or as many as the CPUs allow.
        threads: Threads of each worker, which takes as many CPUs. None takes 1; up to 8 beside a GPU.
        device: `auto`, `cpu` or `cuda`. With a GPU, each worker has one.
        precision: Precision of the graph; see `LocalEncoder`.

    Raises:
        BadModel: The bundle cannot be used.
        BadCluster: No cluster answers, or it has no GPU.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        address: str | None,
        workers: int | None,
        threads: int | None,
        device: str,
        precision: Precision | None,
    ) -> None:
        self.bundle = bundle
        self.info = LocalEncoder(bundle, device="cpu", precision=precision, threads=1).info
        # A worker whose CPUs no node has would never start.
        self._cluster = Cluster(address, cpus=max(available_cpus(), (workers or 1) * (threads or 1)))
        nodes = self._cluster.nodes()
        num_gpus = sum(node.gpus for node in nodes)
        if device == "cuda" and not num_gpus:
            self.close()
            raise BadCluster("the Ray cluster has no GPU: give --device cpu")
        self.has_gpu = device != "cpu" and num_gpus > 0
        self.device = device if self.has_gpu else "cpu"
        self.batch_rows = GPU_BATCH_ROWS if self.has_gpu else batch_rows_on_cpu(self.info.input.shape)
        # A worker has its threads on the node of its GPU.
        shares = [node.cpus // node.gpus for node in nodes if node.gpus]
        gpu_threads = max(1, min([_MAX_GPU_THREADS, *shares]))
        self.threads = threads or (gpu_threads if self.has_gpu else 1)
        room = sum(node.room(self.threads, has_gpu=self.has_gpu) for node in nodes)
        self.workers = workers or max(1, room)
        if room < self.workers:
            self._warn_of_room(room, nodes)

    def _warn_of_room(self, room: int, nodes: Sequence[Node]) -> None:
        """Say that workers wait. It is no error: an autoscaling cluster starts nodes for those that wait."""
        size = f"{self.threads} CPU{'s' * (self.threads > 1)}{' and a GPU' * self.has_gpu}"
        sizes = {str(node): None for node in sorted(nodes, reverse=True)}
        found = ", or ".join(list(sizes)[:_MAX_NAMED_NODES])
        waits = f"{self.workers - room} of {self.workers} workers wait" if room else "the run waits"
        with suppress(OSError):
            typer.echo(
                f"warning: {waits} for nodes: a worker takes {size}, and the cluster's nodes have {found}",
                err=True,
            )

    def pool(self) -> Pool:
        """Return the workers, which start with the first pieces."""
        return Pool(self._cluster.ray, workers=self.workers, threads=self.threads, has_gpu=self.has_gpu)

    def embed(
        self, source: Source, output: RunOutput, settings: RunSettings, *, progress: Progress | None = None
    ) -> RunSummary:
        """Encode every row of `source` and write it to `output`; see `run.embed`.

        Every node reads the source at the same paths or addresses.
        """
        batches = _RayBatches(source, self, output, settings)
        try:
            return write_batches(
                batches, batches, source, output, max_failed=settings.max_failed, progress=progress
            )
        except RunFailed:
            self._cluster.keep_logs()
            raise

    def close(self) -> None:
        """Leave the cluster, or end it if it was started for this run. It may be called again."""
        self._cluster.close()


class _RayBatches:
    """The batches of a source, encoded by workers, and the ends of parts among them."""

    def __init__(self, source: Source, engine: RayEngine, output: RunOutput, settings: RunSettings) -> None:
        self._source = source
        self._part_rows = output.part_rows
        self._position = output.start
        self._passed: Counter[str] = Counter(output.left_out)
        self._before = output.rows + output.failed
        # They are sent with the source, for the workers to compare.
        self._stamps = source.stamps
        plan = plan_pieces(
            source,
            output.start,
            batch_rows=settings.batch_rows,
            part_rows=output.part_rows,
            workers=engine.workers,
        )
        self._rows = plan.rows
        job = WorkerJob(
            source=source,
            current_folder=str(Path.cwd()),
            bundle=engine.bundle,
            info=engine.info,
            device=engine.device,
            threads=engine.threads,
            batch_rows=settings.batch_rows,
            columns=settings.columns,
        )
        self._items = engine.pool().items(job, plan.pieces)

    def __iter__(self) -> Iterator[EncodedBatch | PartEnd]:
        filled = 0
        for item in self._items:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, ShardEnd):
                self._end_shard(item)
                continue
            if item.position != self._position:
                raise RunFailed(f"Ray gave rows of {item.position} where {self._position} is next")
            batch = item.batch
            while len(batch):
                room = len(batch) if self._part_rows is None else self._part_rows - filled
                first, batch = batch.divided(room)
                filled += len(first)
                self._position = Position(self._position.shard, self._position.row + len(first))
                yield first
                if filled == self._part_rows:
                    yield PartEnd(self._position, dict(self._passed))
                    filled = 0
        if self._position.shard < len(self._source.shards):
            raise RunFailed(f"Ray gave no rows after {self._position}")
        if filled:
            yield PartEnd(self._position, dict(self._passed))

    def _end_shard(self, end: ShardEnd) -> None:
        index = self._position.shard
        self._passed.update(end.left_out)
        self._position = Position(index + 1, 0)
        shard = self._source.shards[index]
        if shard.stamp() != self._stamps[index]:
            raise SourceChanged(f"{shard.name} has changed since the run began")

    def expected_rows(self) -> int | None:
        """Return the number of rows in all, if it is known."""
        return None if self._rows is None else self._before + self._rows

    def left_out(self) -> LeftOut:
        """Return the entries that are not rows, of the shards that are read to their ends."""
        known = self._source.left_out
        return left_out_of(self._passed + Counter(known.counts), known.irregular)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._items.close()
