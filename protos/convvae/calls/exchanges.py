"""The exchange behind a client call, as a generator of request batches: no sockets, threads or event loop.

An exchange yields a `RequestBatch`, receives the list of parsed replies, and returns the caller's result. An
error of the batch is thrown into it. `Client` and `AsyncClient` run the same exchanges.
"""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from google.protobuf import wrappers_pb2

from convvae.calls.chunks import chunks_in_flight, split_rows
from convvae.calls.operation import ChunkReply, Operation
from convvae.calls.replies import read_model_info, read_models
from convvae.errors import BadReply, InvalidInput, MessageTooLarge, NotFound, NotPossible, VersionGone
from convvae.model_name import ModelName
from convvae.results import Health, ModelInfo, ModelSummary
from convvae.v1 import vae_pb2

__all__ = [
    "Exchange",
    "ModelCache",
    "PlannedRequest",
    "RequestBatch",
    "check_health",
    "list_models",
    "run_operation",
]

R = TypeVar("R")


class PlannedRequest(NamedTuple):
    """One request: how to build its message and how to parse its reply.

    Attributes:
        method: Name of the RPC.
        build: Builds the message. Called once per attempt, so that only messages in flight use memory.
        parse: Converts the reply message to the value that the exchange receives.
        offset: Index of the request's first row in the caller's rows.
        retry: Whether a failed attempt may be repeated.
    """

    method: str
    build: Callable[[], Any]
    parse: Callable[[Any], Any]
    offset: int = 0
    retry: bool = True


class RequestBatch(NamedTuple):
    """Independent requests, and the number of them to keep in flight."""

    requests: Sequence[PlannedRequest]
    in_flight: int = 1


Exchange: TypeAlias = Generator[RequestBatch, list[Any], R]


class ModelCache:
    """The server's model descriptions, fetched once per model and version."""

    def __init__(self) -> None:
        self._known: dict[ModelName, ModelInfo] = {}

    def get(self, name: ModelName) -> ModelInfo | None:
        """Return the last fetched description of `name`, or None."""
        return self._known.get(name)

    def fetch(self, name: ModelName) -> Exchange[ModelInfo]:
        """Fetch the description of `name` from the server and store it.

        Raises:
            BadReply: The server described another version.
        """
        request = vae_pb2.GetModelRequest(model=name.to_message())
        (info,) = yield RequestBatch([PlannedRequest("GetModel", lambda: request, read_model_info)])
        assert isinstance(info, ModelInfo)
        if name.version not in (0, info.version):
            raise BadReply(f"the client requested {name}, but the server described version {info.version}")
        self._known[name] = info
        return info


def run_operation(
    operation: Operation[R], name: ModelName, models: ModelCache, max_in_flight: int
) -> Exchange[R]:
    """Check the arguments against the model, send the rows in chunks and join the replies.

    The cached description may be out of date, because the server may have changed its version. It is fetched
    again in three cases: before the client refuses arguments because of it, after the server refused them or
    sent an unexpected reply, and before one version is fixed for several chunks.
    """
    try:
        return (yield from _run(operation, name, models, max_in_flight))
    except InvalidInput as error:
        raise operation.named(error) from None


def _run(operation: Operation[R], name: ModelName, models: ModelCache, max_in_flight: int) -> Exchange[R]:
    info = models.get(name)
    fresh = info is None
    if info is None:
        info = yield from models.fetch(name)
    while True:
        refused = None
        try:
            chunks = _chunks(operation, info)
            if fresh or name.version or len(chunks) == 1:
                return (yield from _send(operation, name, models, info, chunks, max_in_flight))
        except (InvalidInput, MessageTooLarge, BadReply) as error:
            if fresh:
                raise
            refused = error
        before, info = info, (yield from models.fetch(name))
        fresh = True
        if refused is not None and info == before:
            raise refused


def _chunks(operation: Operation[Any], info: ModelInfo) -> list[range]:
    operation.check(info)
    return split_rows(
        operation.rows,
        request_bytes=operation.request_bytes(info),
        reply_bytes=operation.reply_bytes(info),
        limits=info.limits,
        draws=operation.draws,
        field=operation.field,
    )


def _send(
    operation: Operation[R],
    name: ModelName,
    models: ModelCache,
    info: ModelInfo,
    chunks: list[range],
    max_in_flight: int,
) -> Exchange[R]:
    # One version answers all chunks, even if the server changes its default during the call.
    pinned = name if len(chunks) == 1 else ModelName(info.model, info.version)
    model = pinned.to_message()
    operation = operation.prepared(len(chunks))
    requests = [
        PlannedRequest(
            operation.method,
            partial(operation.request, model, rows, info),
            partial(_parse, operation, rows, info),
            offset=rows.start,
        )
        for rows in chunks
    ]
    in_flight = chunks_in_flight(
        chunks, limits=info.limits, draws=operation.draws, max_in_flight=max_in_flight
    )
    try:
        replies = yield RequestBatch(requests, in_flight)
    except (NotFound, NotPossible) as error:
        if name.version or not pinned.version:
            raise
        now = yield from models.fetch(name)
        if now.version == info.version:
            raise
        raise VersionGone(
            f"version {info.version} of model {info.model!r} was replaced by {now.version} "
            "during the call; call again",
            code=error.code,
            request_id=error.request_id,
        ) from error
    return _join(operation, pinned, replies)


def _parse(operation: Operation[Any], rows: range, info: ModelInfo, reply: Any) -> ChunkReply:
    return operation.parse(reply, rows, info)


def _join(operation: Operation[R], pinned: ModelName, replies: list[ChunkReply]) -> R:
    served = replies[0].served
    for reply in replies:
        if reply.arrays.keys() != replies[0].arrays.keys():
            raise BadReply("the replies to one call have different fields")
        if reply.served != served or pinned.version not in (0, reply.served.version):
            raise BadReply(
                f"the client requested one version, {pinned or 'the default'}; "
                f"{reply.served} and {served} answered"
            )
    # A single array is copied out of the reply, so that the caller may write to it.
    arrays = {
        name: np.concatenate([reply.arrays[name] for reply in replies]) if len(replies) > 1 else array.copy()
        for name, array in replies[0].arrays.items()
    }
    return operation.answer(
        **arrays,
        **replies[0].constants,
        model=served.model,
        version=served.version,
        precision=served.precision,
    )


def list_models() -> Exchange[tuple[ModelSummary, ...]]:
    """Fetch the list of the server's models."""
    (models,) = yield RequestBatch([PlannedRequest("ListModels", vae_pb2.ListModelsRequest, read_models)])
    assert isinstance(models, tuple)
    return models


def check_health(service: str) -> Exchange[Health]:
    """Fetch the health of the server or of one service, once and without retries.

    Each message of `grpc.health.v1` has one field. Protobuf's wrapper messages have the same bytes, so the
    client does not depend on the package with the health stubs.
    """
    request = wrappers_pb2.StringValue(value=service)
    check = PlannedRequest("Check", lambda: request, lambda reply: reply.value, retry=False)
    try:
        (status,) = yield RequestBatch([check])
    except NotFound:
        return Health.SERVICE_UNKNOWN
    return Health(status) if status in set(Health) else Health.UNKNOWN
