"""Models and what they have done as messages of the Open Inference Protocol."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from convvae_service.engine.stage_stats import StageTotal
from convvae_service.open_inference.graphs import ROLES, GraphModel, GraphTensor, graph_name
from convvae_service.repository.catalog import ModelEntry, VersionState
from convvae_service.settings.serve import ServeSettings
from open_inference import inference_pb2 as pb

__all__ = ["EXTENSIONS", "AnsweredCalls", "describe", "describe_config", "index", "statistics"]

EXTENSIONS = ("model_configuration", "statistics")
_PLATFORM = "onnxruntime_onnx"
_BACKEND = "onnxruntime"
_DATA_TYPES = {"UINT8": pb.TYPE_UINT8, "FP32": pb.TYPE_FP32}


@dataclass(slots=True)
class AnsweredCalls:
    """Requests of one graph of a version, from arrival to answer."""

    success: StageTotal = field(default_factory=StageTotal)
    fail: StageTotal = field(default_factory=StageTotal)


def describe(graph: GraphModel, versions: Sequence[int]) -> pb.ModelMetadataResponse:
    """Describe a graph's tensors."""

    def metadata(tensor: GraphTensor) -> pb.ModelMetadataResponse.TensorMetadata:
        return pb.ModelMetadataResponse.TensorMetadata(
            name=tensor.name, datatype=tensor.datatype, shape=(-1, *tensor.sizes)
        )

    return pb.ModelMetadataResponse(
        name=graph.name,
        versions=map(str, versions),
        platform=_PLATFORM,
        inputs=[metadata(graph.input)],
        outputs=map(metadata, graph.outputs),
    )


def describe_config(graph: GraphModel, settings: ServeSettings, *, max_rows: int) -> pb.ModelConfigResponse:
    """Describe how a graph is run."""
    on_cpu = graph.served.engine.provider == "CPUExecutionProvider"
    config = pb.ModelConfig(
        name=graph.name,
        platform=_PLATFORM,
        backend=_BACKEND,
        max_batch_size=max_rows,
        input=[
            pb.ModelInput(
                name=graph.input.name,
                data_type=_DATA_TYPES[graph.input.datatype],
                dims=graph.input.sizes,
            )
        ],
        output=[
            pb.ModelOutput(name=tensor.name, data_type=_DATA_TYPES[tensor.datatype], dims=tensor.sizes)
            for tensor in graph.outputs
        ],
        instance_group=[
            pb.ModelInstanceGroup(
                name=graph.name,
                kind=pb.ModelInstanceGroup.KIND_CPU if on_cpu else pb.ModelInstanceGroup.KIND_GPU,
                count=settings.lanes,
            )
        ],
        dynamic_batching=pb.ModelDynamicBatching(max_queue_delay_microseconds=settings.max_queue_delay_us),
        parameters={"precision": pb.ModelParameter(string_value=graph.served.engine.precision)},
    )
    return pb.ModelConfigResponse(config=config)


def statistics(graph: GraphModel, answered: AnsweredCalls) -> pb.ModelStatistics:
    """Sum up what a graph has run, for whichever API, and how requests of this protocol were answered."""
    tallies = [stage.stats for stage in graph.stages]
    runs: dict[int, StageTotal] = {}
    queue, compute = StageTotal(), StageTotal()
    for stats in tallies:
        for whole, part in ((queue, stats.queue), (compute, stats.compute)):
            whole.count += part.count
            whole.ns += part.ns
        for rows, part in stats.by_rows.items():
            whole = runs.setdefault(rows, StageTotal())
            whole.count += part.count
            whole.ns += part.ns
    unmeasured = pb.StatisticDuration(count=compute.count)
    return pb.ModelStatistics(
        name=graph.name,
        version=str(graph.served.version),
        last_inference=max(stats.last_run_ms for stats in tallies),
        inference_count=sum(stats.rows for stats in tallies),
        execution_count=sum(stats.runs for stats in tallies),
        inference_stats=pb.InferStatistics(
            success=_duration(answered.success),
            fail=_duration(answered.fail),
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


def index(
    models: Mapping[str, ModelEntry], *, only_ready: bool
) -> Iterator[pb.RepositoryIndexResponse.ModelIndex]:
    """Yield each graph of each version with its state."""
    for name, entry in models.items():
        for role in ROLES:
            for number, version in sorted(entry.versions.items()):
                ready = version.loaded is not None
                if only_ready and not ready:
                    continue
                waiting = "LOADING" if version.state is VersionState.LOADING else "UNAVAILABLE"
                yield pb.RepositoryIndexResponse.ModelIndex(
                    name=graph_name(name, role),
                    version=str(number),
                    state="READY" if ready else waiting,
                    reason=version.error or ("" if ready else version.state.value),
                )


def _duration(total: StageTotal) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=total.count, ns=total.ns)
