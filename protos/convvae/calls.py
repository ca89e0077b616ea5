"""A call of the client as a generator of batches to send: no sockets, no threads, no event loop.

A generator yields a `Batch`, is sent the list of what its calls read, and returns the caller's result; an
error of the batch is thrown into it. `Client` and `AsyncClient` drive the same generators.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
from google.protobuf import wrappers_pb2

from convvae.errors import BadReply, InvalidInput, MessageTooLarge, NotFound, NotPossible, VersionGone
from convvae.model_name import ModelName
from convvae.operations import Operation, Part
from convvae.pieces import cut, pieces_in_flight
from convvae.replies import read_model_info, read_models
from convvae.results import Health, ModelInfo, ModelSummary
from convvae.v1 import vae_pb2

__all__ = ["Batch", "Call", "Models", "Steps", "check_health", "list_models", "run"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Call:
    """One request: how to make it, and how to read its reply.

    Attributes:
        method: Name of the RPC.
        build: Makes the message, once for each attempt, so that only what is in flight is in memory.
        read: Turns the reply into what the generator wants of it.
        offset: The caller's index of the request's first row.
        retry: Whether a failure may be retried.
    """

    method: str
    build: Callable[[], Any]
    read: Callable[[Any], Any]
    offset: int = 0
    retry: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that do not depend on each other, and how many of them to have in flight."""

    calls: Sequence[Call]
    in_flight: int = 1


Steps: TypeAlias = Generator[Batch, list[Any], R]


class Models:
    """What is known of the server's models: asked once for each model and version."""

    def __init__(self) -> None:
        self._known: dict[ModelName, ModelInfo] = {}

    def get(self, name: ModelName) -> ModelInfo | None:
        """Return what was last said of `name`."""
        return self._known.get(name)

    def fetch(self, name: ModelName) -> Steps[ModelInfo]:
        """Ask the server."""
        request = vae_pb2.GetModelRequest(model=name.to_message())
        (about,) = yield Batch([Call("GetModel", lambda: request, read_model_info)])
        assert isinstance(about, ModelInfo)
        if name.version not in (0, about.version):
            raise BadReply(f"asked for {name}, the server described version {about.version}")
        self._known[name] = about
        return about


def run(operation: Operation[R], name: ModelName, models: Models, max_in_flight: int) -> Steps[R]:
    """Check the arguments against the model, cut the call into pieces, send them and join the answers.

    What is known of the model may be out of date, as the server may serve another version by now. It is asked
    for again before arguments are refused because of it, after the server refused them or answered otherwise
    than expected, and before the version is fixed for several pieces.
    """
    about = models.get(name)
    fresh = about is None
    if about is None:
        about = yield from models.fetch(name)
    while True:
        refused = None
        try:
            pieces = _plan(operation, about)
            if fresh or name.version or len(pieces) == 1:
                return (yield from _send(operation, name, models, about, pieces, max_in_flight))
        except (InvalidInput, MessageTooLarge, BadReply) as error:
            if fresh:
                raise
            refused = error
        before, about = about, (yield from models.fetch(name))
        fresh = True
        if refused is not None and about == before:
            raise refused


def _plan(operation: Operation[Any], about: ModelInfo) -> list[range]:
    operation.check(about)
    return cut(
        operation.rows,
        request_bytes=operation.request_bytes(about),
        reply_bytes=operation.reply_bytes(about),
        limits=about.limits,
        draws=operation.draws,
        field=operation.field,
    )


def _send(
    operation: Operation[R],
    name: ModelName,
    models: Models,
    about: ModelInfo,
    pieces: list[range],
    max_in_flight: int,
) -> Steps[R]:
    # One version answers all pieces, also while the server changes its default.
    pinned = name if len(pieces) == 1 else ModelName(about.model, about.version)
    model = pinned.to_message()
    operation = operation.prepared(len(pieces))
    calls = [
        Call(
            operation.method,
            partial(operation.request, model, rows, about),
            partial(_read, operation, rows, about),
            offset=rows.start,
        )
        for rows in pieces
    ]
    in_flight = pieces_in_flight(
        pieces, limits=about.limits, draws=operation.draws, max_in_flight=max_in_flight
    )
    try:
        parts = yield Batch(calls, in_flight)
    except (NotFound, NotPossible) as error:
        if name.version or not pinned.version:
            raise
        now = yield from models.fetch(name)
        if now.version == about.version:
            raise
        raise VersionGone(
            f"version {about.version} of model {about.model!r} was replaced by {now.version} "
            "during the call; call again",
            code=error.code,
            request_id=error.request_id,
        ) from error
    return _join(operation, pinned, parts)


def _read(operation: Operation[Any], rows: range, about: ModelInfo, reply: Any) -> Part:
    return operation.read(reply, rows, about)


def _join(operation: Operation[R], pinned: ModelName, parts: list[Part]) -> R:
    served = parts[0].served
    for part in parts:
        if part.arrays.keys() != parts[0].arrays.keys():
            raise BadReply("some pieces of the call were answered with fields that others lack")
        if part.served != served or pinned.version not in (0, part.served.version):
            raise BadReply(
                f"asked for one version, {pinned or 'the default'}; {part.served} and {served} answered"
            )
    # Concatenating one array copies it out of the reply, so that the caller may write to it.
    arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    return operation.answer(
        **arrays,
        **parts[0].constants,
        model=served.model,
        version=served.version,
        precision=served.precision,
    )


def list_models() -> Steps[tuple[ModelSummary, ...]]:
    """Ask for the server's models."""
    (models,) = yield Batch([Call("ListModels", vae_pb2.ListModelsRequest, read_models)])
    assert isinstance(models, tuple)
    return models


def check_health(service: str) -> Steps[Health]:
    """Ask for the health of the server or one service, once: a probe reports what it finds.

    `grpc.health.v1`'s messages have one field each, so that protobuf's wrappers have the same bytes; the
    package's own stubs would be one more dependency.
    """
    request = wrappers_pb2.StringValue(value=service)
    try:
        (status,) = yield Batch([Call("Check", lambda: request, lambda reply: reply.value, retry=False)])
    except NotFound:
        return Health.SERVICE_UNKNOWN
    return Health(status) if status in set(Health) else Health.UNKNOWN
