"""A call of grpcio: its metadata in, its status out."""

from typing import Any, NoReturn

import grpc

from convvae_service.calls.request_id import REQUEST_ID_KEY
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.status import DETAILS_KEY, Refusal
from convvae_service.observability.call import Call

__all__ = ["Context", "abort", "begin_call"]

Context = grpc.aio.ServicerContext[Any, Any]


def begin_call(runner: CallRunner, method: str, context: Context) -> Call:
    """Return the call, and promise its id to the caller in the trailing metadata."""
    call = runner.begin(method, tuple(context.invocation_metadata() or ()))
    if runner.tracing is not None:
        call.peer = context.peer()
    context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
    return call


async def abort(context: Context, call: Call, refusal: Refusal) -> NoReturn:
    """End a call with the status of `refusal`.

    Raises:
        AbortError: Always; it must reach gRPC.
    """
    trailing: tuple[tuple[str, str | bytes], ...] = ((REQUEST_ID_KEY, call.request_id),)
    if refusal.details:
        trailing += ((DETAILS_KEY, refusal.details),)
    await context.abort(grpc.StatusCode[refusal.code], refusal.message, trailing)
