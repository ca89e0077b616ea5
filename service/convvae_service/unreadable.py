"""Requests whose bytes are no message: refused, counted and logged as any other bad call.

gRPC itself would answer UNKNOWN, and write a traceback to the log that every caller can provoke.

A call whose deadline has passed before it is begun is dropped unread: gRPC never frees 96 bytes of each call
that it tries to read in vain (grpc/grpc#43360), and a storm of such calls would take memory for good.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from convvae_service.answer import Answering, Call, Context
from convvae_service.errors import InvalidInput, Violation

__all__ = ["ReadableRequests"]

_UNREADABLE = object()
# Nobody can be answered in less.
_LEAST_LEFT_S = 0.001
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class ReadableRequests:
    """What handlers are added to in place of a server, so that they are given readable requests only."""

    def __init__(self, server: grpc.aio.Server, answering: Answering) -> None:
        self._server = server
        self._answering = answering

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Leave them out: `add_registered_method_handlers`, which generated code calls next, has the same."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service."""
        guarded = {name: self._guard(name, handler) for name, handler in handlers.items()}
        generic = grpc.method_handlers_generic_handler(service, guarded)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_registered_method_handlers(service, guarded)

    def _guard(self, name: str, handler: Handler) -> Handler:
        make, behave = {
            # gRPC reads a single request before it asks the handler; a stream's it leaves to the handler. A
            # caller sees no difference.
            (False, False): (grpc.stream_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }[handler.request_streaming, handler.response_streaming]
        if not inspect.iscoroutinefunction(behave):
            # Of these there are the ones alone that nobody implements.
            return handler

        async def refuse(request: object, context: Context) -> None:
            await self._answering.answer(name, _refuse, request, context)

        async def guarded(request: Any, context: Context) -> Any:
            if request is _UNREADABLE:
                return await refuse(request, context)
            return await behave(request, context)

        async def guarded_single(requests: AsyncIterator[Any], context: Context) -> Any:
            left_s = context.time_remaining()
            if left_s is not None and left_s < _LEAST_LEFT_S:
                self._answering.count_expired(name)
                raise asyncio.CancelledError
            async for request in requests:
                return await guarded(request, context)
            # The caller has left.
            raise asyncio.CancelledError

        async def guarded_stream(requests: AsyncIterator[Any], context: Context) -> Any:
            readable = _Readable(requests)
            result = await behave(readable, context)
            # What came before it is answered.
            if readable.ended_early:
                await refuse(_UNREADABLE, context)
            return result

        single = guarded if handler.response_streaming else guarded_single
        return make(
            guarded_stream if handler.request_streaming else single,
            request_deserializer=_or_unreadable(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )


class _Readable:
    """The requests of a stream up to the first that cannot be read."""

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = requests
        self.ended_early = False

    def __aiter__(self) -> "_Readable":
        return self

    async def __anext__(self) -> Any:
        request = await anext(self._requests)
        if request is _UNREADABLE:
            self.ended_early = True
            raise StopAsyncIteration
        return request


def _or_unreadable(deserialize: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNREADABLE

    return read


async def _refuse(request: object, call: Call) -> NoReturn:
    del request, call
    raise InvalidInput([Violation("request", "its bytes are no message of the method's request type")])
