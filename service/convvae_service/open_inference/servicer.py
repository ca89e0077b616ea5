"""The Open Inference Protocol (`inference.GRPCInferenceService`) beside `convvae.v1`, over the same engine.

The names of the wire say `Model` where the rest of the service says graph: see docs/open-inference.md.
"""

import asyncio
import importlib.metadata
import time
from collections.abc import AsyncIterator, Callable
from weakref import WeakKeyDictionary

import grpc

from convvae_service.api.servicer import call_limits
from convvae_service.batching.batcher import Batcher
from convvae_service.calls.runner import REQUEST_ID_KEY, CallRunner, Context, request_id_of
from convvae_service.errors import (
    CapabilityMissing,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    VersionNotLoaded,
    Violation,
)
from convvae_service.observability.call import Call
from convvae_service.open_inference.graphs import ROLES, GraphModel, GraphTensor, split_name, version_number
from convvae_service.open_inference.metadata import (
    EXTENSIONS,
    AnsweredCalls,
    describe,
    describe_config,
    index,
    statistics,
)
from convvae_service.open_inference.stream import InferStream
from convvae_service.open_inference.tensors import read_input, requested_outputs, write_outputs
from convvae_service.repository.catalog import LoadedVersion, Repository
from convvae_service.settings.serve import ServeSettings
from open_inference import inference_pb2 as pb
from open_inference import inference_pb2_grpc

__all__ = ["OpenInferenceServicer"]

# Room in a message for everything that is not rows.
_MESSAGE_OVERHEAD_BYTES = 4096
_CAPABILITIES = {"encoder": "encode", "decoder": "decode"}


class OpenInferenceServicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers inferences on the graphs of a repository's versions."""

    def __init__(
        self,
        *,
        settings: ServeSettings,
        repository: Repository,
        batcher: Batcher,
        runner: CallRunner,
        is_ready: Callable[[], bool],
        is_live: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._batcher = batcher
        self._runner = runner
        self._is_ready = is_ready
        self._is_live = is_live
        # Of a version while it is in memory: one that is made anew under its number begins at 0.
        self._answered: WeakKeyDictionary[LoadedVersion, dict[str, AnsweredCalls]] = WeakKeyDictionary()

    def add_to(self, server: grpc.aio.Server) -> str:
        """Answer the protocol's calls to a server, and return the service's name."""
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, server)
        return pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

    # As with health, these three are neither counted nor logged, and they answer while the server starts.
    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Tell whether the server moves: what health calls `liveness`."""
        del request, context
        return pb.ServerLiveResponse(live=self._is_live())

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Tell whether the server takes inferences."""
        del request, context
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Tell whether a graph takes inferences."""
        del context
        try:
            self._graph(request.name, request.version)
        except (NotFound, VersionNotLoaded, InvalidInput):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._is_ready())

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Name the server."""
        return await self._runner.answer("ServerMetadata", self._server_metadata, request, context)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Describe a graph's tensors."""
        return await self._runner.answer("ModelMetadata", self._model_metadata, request, context)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Run a graph on a batch."""
        return await self._runner.answer("ModelInfer", self._infer, request, context)

    # A coroutine that writes, not a generator: its tasks end with it, whatever becomes of the call.
    async def ModelStreamInfer(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> None:
        """Run a graph on many batches."""

        async def infer(request: pb.ModelInferRequest, own: Context) -> pb.ModelInferResponse:
            return await self._runner.answer("ModelStreamInfer", self._infer, request, own)

        request_id = request_id_of(context)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        await InferStream(infer, request_iterator, context, request_id=request_id).serve()

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        """Describe how a graph is run."""
        return await self._runner.answer("ModelConfig", self._model_config, request, context)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Count what graphs have done."""
        return await self._runner.answer("ModelStatistics", self._model_statistics, request, context)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """List the graphs of all versions."""
        return await self._runner.answer("RepositoryIndex", self._index, request, context)

    async def _server_metadata(
        self, request: pb.ServerMetadataRequest, call: Call
    ) -> pb.ServerMetadataResponse:
        del request, call
        return pb.ServerMetadataResponse(
            name="convvae", version=importlib.metadata.version("convvae"), extensions=EXTENSIONS
        )

    async def _model_metadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        graph = self._graph(request.name, request.version, call)
        return describe(graph, [v.version for v in self._repository.loaded if v.name == graph.served.name])

    async def _model_config(self, request: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        graph = self._graph(request.name, request.version, call)
        return describe_config(graph, self._settings, max_rows=self._max_rows(graph, graph.outputs))

    async def _model_statistics(
        self, request: pb.ModelStatisticsRequest, call: Call
    ) -> pb.ModelStatisticsResponse:
        graphs = [GraphModel.of(served, role) for served in self._repository.loaded for role in ROLES]
        if request.name:
            graph = self._graph(request.name, request.version, call)
            # Without a version all of the model's that are loaded.
            graphs = [graph] if request.version else [other for other in graphs if other.name == graph.name]
        return pb.ModelStatisticsResponse(
            model_stats=[statistics(graph, self._answered_by(graph)) for graph in graphs]
        )

    async def _index(self, request: pb.RepositoryIndexRequest, call: Call) -> pb.RepositoryIndexResponse:
        del call
        if request.repository_name:
            description = f"is {request.repository_name[:64]!r}: leave it empty, there is one repository"
            raise InvalidInput([Violation("repository_name", description)])
        return pb.RepositoryIndexResponse(models=index(self._repository.models, only_ready=request.ready))

    async def _infer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        started_s = time.monotonic()
        graph = self._graph(request.model_name, request.model_version, call, version_field="model_version")
        answered = self._answered_by(graph)
        timeout_us = _timeout_us(request)
        try:
            async with asyncio.timeout(timeout_us / 1e6 if timeout_us else None):
                reply = await self._run(request, graph, call)
        except TimeoutError:
            answered.fail.add(time.monotonic() - started_s)
            raise DeadlineExceeded(
                f"the request took longer than its parameter 'timeout', {timeout_us} microseconds"
            ) from None
        except BaseException:
            answered.fail.add(time.monotonic() - started_s)
            raise
        answered.success.add(time.monotonic() - started_s)
        return reply

    async def _run(
        self, request: pb.ModelInferRequest, graph: GraphModel, call: Call
    ) -> pb.ModelInferResponse:
        capability = _CAPABILITIES[graph.role]
        if capability not in graph.served.manifest.capabilities:
            raise CapabilityMissing(f"model {graph.served.name!r} cannot {capability}")
        outputs = requested_outputs(request, graph=graph)
        max_bytes = self._settings.max_message_bytes
        max_rows = self._max_rows(graph, outputs)
        values = await read_input(request, graph=graph, max_rows=max_rows, max_message_bytes=max_bytes)
        call.rows = len(values)
        num_bytes = values.nbytes + call.rows * _row_bytes(graph, outputs)
        stage, names = graph.stage_for(outputs)
        with self._batcher.admit(rows=call.rows, num_bytes=num_bytes):
            results = await self._batcher.run(stage, (values,))
        reply = pb.ModelInferResponse(
            model_name=graph.name, model_version=str(graph.served.version), id=request.id
        )
        reply.parameters["precision"].string_param = graph.served.engine.precision
        write_outputs(reply, outputs, dict(zip(names, results, strict=True)))
        return reply

    def _graph(
        self, name: str, version: str, call: Call | None = None, *, version_field: str = "version"
    ) -> GraphModel:
        """Return a graph, kept from being closed for the length of `call`."""
        model, role = split_name(name)
        number = version_number(version, version_field)
        if model not in self._repository.models:
            raise NotFound(f"no model {name[:64]!r} here: RepositoryIndex lists those there are")
        if call is None:
            return GraphModel.of(self._repository.resolve(model, number), role)
        served = call.held.enter_context(self._repository.lease(model, number))
        call.model, call.version = served.name, served.version
        return GraphModel.of(served, role)

    def _answered_by(self, graph: GraphModel) -> AnsweredCalls:
        return self._answered.setdefault(graph.served, {}).setdefault(graph.name, AnsweredCalls())

    def _max_rows(self, graph: GraphModel, outputs: tuple[GraphTensor, ...]) -> int:
        """Return the most rows of a call: the native API's, or fewer where these outputs need more room."""
        in_a_message = (self._settings.max_message_bytes - _MESSAGE_OVERHEAD_BYTES) // _row_bytes(
            graph, outputs
        )
        return min(call_limits(self._settings, graph.served).max_rows, in_a_message)


def _row_bytes(graph: GraphModel, outputs: tuple[GraphTensor, ...]) -> int:
    return graph.input.row_bytes + sum(tensor.row_bytes for tensor in outputs)


def _timeout_us(request: pb.ModelInferRequest) -> int:
    """Return the microseconds that the request gives itself; 0 for no limit of its own."""
    if "timeout" not in request.parameters:
        return 0
    parameter = request.parameters["timeout"]
    kind = parameter.WhichOneof("parameter_choice")
    value: int = parameter.uint64_param if kind == "uint64_param" else parameter.int64_param
    if kind not in ("int64_param", "uint64_param") or value < 0:
        raise InvalidInput([Violation("parameters[timeout]", "is no number of microseconds from 0 on")])
    return value
