"""The statistics of graphs as messages of the Open Inference Protocol."""

from dataclasses import dataclass, field

from convvae_service.engine.stage_stats import StageTotal
from convvae_service.open_inference.graphs import GraphModel
from open_inference import inference_pb2 as pb

__all__ = ["InferenceTotals", "statistics"]


@dataclass(slots=True)
class InferenceTotals:
    """Requests of one graph, from arrival to answer: those that succeeded and those that failed."""

    success: StageTotal = field(default_factory=StageTotal)
    fail: StageTotal = field(default_factory=StageTotal)


def statistics(graph: GraphModel, totals: InferenceTotals) -> pb.ModelStatistics:
    """Return what a graph has run for every API, and how the requests of this protocol ended.

    The protocol has times for copying inputs and outputs too. They are not measured: their time is 0.
    """
    stages = [stage.stats.snapshot() for stage in graph.stages]
    runs: dict[int, StageTotal] = {}
    queue, compute = StageTotal(), StageTotal()
    for stats in stages:
        _add(queue, stats.queue)
        _add(compute, stats.compute)
        for rows, total in stats.by_rows.items():
            _add(runs.setdefault(rows, StageTotal()), total)
    unmeasured = pb.StatisticDuration(count=compute.count)
    return pb.ModelStatistics(
        name=graph.name,
        version=str(graph.served.version),
        last_inference=max(stats.last_run_ms for stats in stages),
        inference_count=sum(stats.rows for stats in stages),
        execution_count=sum(stats.runs for stats in stages),
        inference_stats=pb.InferStatistics(
            success=_duration(totals.success),
            fail=_duration(totals.fail),
            queue=_duration(queue),
            compute_input=unmeasured,
            compute_infer=_duration(compute),
            compute_output=unmeasured,
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=rows,
                compute_input=pb.StatisticDuration(count=total.count),
                compute_infer=_duration(total),
                compute_output=pb.StatisticDuration(count=total.count),
            )
            for rows, total in sorted(runs.items())
        ],
    )


def _add(whole: StageTotal, part: StageTotal) -> None:
    whole.count += part.count
    whole.ns += part.ns


def _duration(total: StageTotal) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=total.count, ns=total.ns)
