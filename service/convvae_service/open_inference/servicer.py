"""The methods of the Open Inference Protocol (`inference.GRPCInferenceService`), over the same engine.

The names of the wire say `Model` where the rest of the service says graph: see docs/open-inference.md.
"""

import importlib.metadata
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from functools import partial
from weakref import WeakKeyDictionary

from convvae_service.api.limits import call_limits, rows_per_message
from convvae_service.batching.batcher import Batcher
from convvae_service.bundle import ROLES, Role
from convvae_service.calls.message_limits import message_limits
from convvae_service.calls.on_loop import run_on_loop
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.service import Service, Stream
from convvae_service.calls.status import Refusal
from convvae_service.calls.waiting import wait
from convvae_service.errors import (
    CapabilityMissing,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    VersionNotLoaded,
    Violation,
)
from convvae_service.observability.call import Call
from convvae_service.open_inference.graphs import GraphModel, GraphTensor, split_name, version_number
from convvae_service.open_inference.metadata import describe, describe_config, index
from convvae_service.open_inference.statistics import InferenceTotals, statistics
from convvae_service.open_inference.stream import InferStream
from convvae_service.open_inference.tensors import read_input, requested_outputs, write_outputs
from convvae_service.repository.catalog import Repository
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.settings.serve import ServeSettings
from open_inference import inference_pb2 as pb

__all__ = ["OpenInferenceServicer"]

_MAX_ID_LENGTH = 1024
_EXTENSIONS = ("model_configuration", "statistics")
_CAPABILITIES = {"encoder": "encode", "decoder": "decode"}


class OpenInferenceServicer:
    """Answers inferences on the graphs of a repository's versions."""

    def __init__(
        self,
        *,
        settings: ServeSettings,
        repository: Repository,
        batcher: Batcher,
        runner: CallRunner,
        workers: Executor,
        is_ready: Callable[[], bool],
        is_live: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._batcher = batcher
        self._runner = runner
        self._workers = workers
        self._is_ready = is_ready
        self._is_live = is_live
        # Totals are dropped with their version. A version that is loaded again starts at 0.
        self._totals_lock = threading.RLock()
        self._totals: WeakKeyDictionary[LoadedVersion, dict[Role, InferenceTotals]] = WeakKeyDictionary()

    @property
    def service(self) -> Service:
        """The service that a front serves."""
        return Service(
            descriptor=pb.DESCRIPTOR.services_by_name["GRPCInferenceService"],
            limits=message_limits(self._settings),
            calls={
                "ServerMetadata": self.server_metadata,
                "ModelMetadata": self.model_metadata,
                "ModelConfig": self.model_config,
                "ModelStatistics": self.model_statistics,
                "ModelInfer": self.infer,
                "RepositoryIndex": self.repository_index,
            },
            probes={
                "ServerLive": self.server_live,
                "ServerReady": self.server_ready,
                "ModelReady": self.model_ready,
            },
            streams={"ModelStreamInfer": self.stream_infer},
        )

    def server_live(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Report whether the server is alive, like the health name `liveness`."""
        del request
        return pb.ServerLiveResponse(live=self._is_live())

    def server_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Report whether the server takes inferences."""
        del request
        return pb.ServerReadyResponse(ready=self._is_ready())

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Report whether a graph takes inferences."""
        try:
            model, role, version = self._address(request.name, request.version, "version")
            GraphModel.of(self._repository.resolve(model, version), role)
        except (NotFound, VersionNotLoaded, InvalidInput):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._is_ready())

    async def server_metadata(
        self, request: pb.ServerMetadataRequest, call: Call
    ) -> pb.ServerMetadataResponse:
        """Return name, version and extensions of the server."""
        del request, call
        return pb.ServerMetadataResponse(
            name="convvae", version=importlib.metadata.version("convvae"), extensions=_EXTENSIONS
        )

    async def model_metadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        """Describe the tensors of a graph."""
        graph = self._lease(request.name, request.version, call)
        return describe(graph, [v.version for v in self._repository.loaded if v.name == graph.served.name])

    async def model_config(self, request: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        """Describe how a graph is run."""
        graph = self._lease(request.name, request.version, call)
        return describe_config(graph, self._settings, max_rows=self._max_rows(graph, graph.outputs))

    async def model_statistics(
        self, request: pb.ModelStatisticsRequest, call: Call
    ) -> pb.ModelStatisticsResponse:
        """Return what graphs have run since they were loaded."""
        graphs = [GraphModel.of(served, role) for served in self._repository.loaded for role in ROLES]
        if request.name:
            graph = self._lease(request.name, request.version, call)
            # Without a version, all loaded versions of the graph.
            own = GraphModel.of(graph.served, graph.role)
            graphs = [own] if request.version else [other for other in graphs if other.name == own.name]
        with self._totals_lock:
            return pb.ModelStatisticsResponse(
                model_stats=[statistics(graph, self._totals_of(graph)) for graph in graphs]
            )

    async def repository_index(
        self, request: pb.RepositoryIndexRequest, call: Call
    ) -> pb.RepositoryIndexResponse:
        """List the graphs of all versions."""
        del call
        if request.repository_name:
            description = f"is {request.repository_name[:64]!r}: leave it empty, there is only one repository"
            raise InvalidInput([Violation("repository_name", description)])
        with self._repository.lock:
            return pb.RepositoryIndexResponse(models=index(self._repository.models, only_ready=request.ready))

    async def infer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        """Run a graph on a batch."""
        started_s = time.monotonic()
        if len(request.id) > _MAX_ID_LENGTH:
            # The reply repeats it.
            raise InvalidInput(
                [Violation("id", f"has {len(request.id)} characters, more than {_MAX_ID_LENGTH}")]
            )
        graph = self._lease(request.model_name, request.model_version, call, version_field="model_version")
        totals = self._totals_of(graph)
        timeout_us = _timeout_us(request)
        if timeout_us:
            call.limit(timeout_us / 1e6, partial(_too_slow, timeout_us))
        outcome = totals.fail
        try:
            reply = await self._run(request, graph, call)
            outcome = totals.success
        finally:
            with self._totals_lock:
                outcome.add(time.monotonic() - started_s)
        return reply

    async def stream_infer(self, requests: AsyncIterator[pb.ModelInferRequest], stream: Stream) -> None:
        """Run graphs on many batches. Each request counts as one call."""

        async def infer(request: pb.ModelInferRequest, request_id: str) -> pb.ModelInferResponse | Refusal:
            call = Call("ModelStreamInfer", request_id)
            answer: pb.ModelInferResponse | Refusal = await run_on_loop(
                partial(
                    self._runner.prepare,
                    call,
                    self.infer,
                    request,
                    time_left_s=stream.time_left_s(),
                )
            )
            return answer

        await InferStream(
            infer,
            requests,
            stream.write,
            request_id=stream.request_id,
            account=self._runner.pending,
        ).serve()

    async def _run(
        self, request: pb.ModelInferRequest, graph: GraphModel, call: Call
    ) -> pb.ModelInferResponse:
        capability = _CAPABILITIES[graph.role]
        if capability not in graph.served.manifest.capabilities:
            raise CapabilityMissing(f"model {graph.served.name!r} cannot {capability}")
        outputs = requested_outputs(request, graph=graph)
        max_rows = self._max_rows(graph, outputs)
        values = await read_input(request, graph=graph, max_rows=max_rows, workers=self._workers)
        call.rows = len(values)
        call.held.add(values.nbytes + call.rows * graph.row_bytes(outputs))
        stage, names = graph.stage_for(outputs)
        with self._batcher.admit(rows=call.rows):
            results = await wait(self._batcher.submit(stage, (values,), call.observe(), alone=call.alone))
        reply = pb.ModelInferResponse(
            model_name=graph.name, model_version=str(graph.served.version), id=request.id
        )
        reply.parameters["precision"].string_param = graph.served.engine.precision
        write_outputs(reply, outputs, dict(zip(names, results, strict=True)))
        return reply

    def _lease(self, name: str, version: str, call: Call, *, version_field: str = "version") -> GraphModel:
        """Return a graph whose version stays open until the call ends."""
        model, role, number = self._address(name, version, version_field)
        served = self._repository.lease(model, number)
        call.on_end.append(served.release)
        call.model, call.version = served.name, served.version
        return GraphModel.of(served, role, name=name)

    def _address(self, name: str, version: str, version_field: str) -> tuple[str, Role, int]:
        """Return the model, the graph and the version that a request names; 0 is the default version."""
        model, role = split_name(name)
        number = version_number(version, version_field)
        if self._repository.aliases.get(model, model) not in self._repository.models:
            raise NotFound(
                f"no model {name[:64]!r} on this server: models are the graphs MODEL.encoder and"
                " MODEL.decoder, and RepositoryIndex lists them"
            )
        return model, role, number

    def _totals_of(self, graph: GraphModel) -> InferenceTotals:
        with self._totals_lock:
            return self._totals.setdefault(graph.served, {}).setdefault(graph.role, InferenceTotals())

    def _max_rows(self, graph: GraphModel, outputs: tuple[GraphTensor, ...]) -> int:
        """Return the maximum rows of a call: as in `convvae.v1`, or fewer if these outputs need more room."""
        in_a_message = rows_per_message(self._settings, graph.row_bytes(outputs))
        return min(call_limits(self._settings, graph.served).max_rows, in_a_message)


def _timeout_us(request: pb.ModelInferRequest) -> int:
    """Return the request's own time limit in microseconds; 0 for none."""
    if "timeout" not in request.parameters:
        return 0
    parameter = request.parameters["timeout"]
    kind = parameter.WhichOneof("parameter_choice")
    value: int = parameter.uint64_param if kind == "uint64_param" else parameter.int64_param
    if kind not in ("int64_param", "uint64_param") or value < 0:
        raise InvalidInput([Violation("parameters[timeout]", "must be an integer >= 0 (microseconds)")])
    return value


def _too_slow(timeout_us: int) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the request took longer than its parameter 'timeout', {timeout_us} microseconds"
    )
