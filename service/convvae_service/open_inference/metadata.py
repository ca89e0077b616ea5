"""Graphs and their states as messages of the Open Inference Protocol."""

from collections.abc import Iterator, Mapping, Sequence

from convvae_service.bundle import ROLES
from convvae_service.open_inference.graphs import GraphModel, GraphTensor, graph_name
from convvae_service.repository.entry import ModelEntry, VersionState
from convvae_service.settings.serve import ServeSettings
from open_inference import inference_pb2 as pb

__all__ = ["describe", "describe_config", "index"]

_PLATFORM = "onnxruntime_onnx"
_BACKEND = "onnxruntime"
_DATA_TYPES = {"UINT8": pb.TYPE_UINT8, "FP32": pb.TYPE_FP32}


def describe(graph: GraphModel, versions: Sequence[int]) -> pb.ModelMetadataResponse:
    """Return the tensors of a graph, and the versions that are loaded."""

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
    """Return how a graph is run: its tensors, batch size, device and queue."""
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


def index(
    models: Mapping[str, ModelEntry], *, only_ready: bool
) -> Iterator[pb.RepositoryIndexResponse.ModelIndex]:
    """Yield each graph of each version with its state.

    Args:
        models: The models of the repository, by name.
        only_ready: Whether to skip the versions that are not loaded.
    """
    for name, entry in models.items():
        for role in ROLES:
            for number, version in sorted(entry.versions.items()):
                ready = version.loaded is not None
                if only_ready and not ready:
                    continue
                not_ready = "LOADING" if version.state is VersionState.LOADING else "UNAVAILABLE"
                yield pb.RepositoryIndexResponse.ModelIndex(
                    name=graph_name(name, role),
                    version=str(number),
                    state="READY" if ready else not_ready,
                    reason=version.error or ("" if ready else version.state.value),
                )
