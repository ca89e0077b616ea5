"""Calls as they arrive: only requests that are there and can be read reach the handlers.

- Bytes that are no message, or none at all, are refused, counted and logged as any other bad call. gRPC
  itself would answer UNKNOWN, and write a traceback to the log that every caller can provoke.
- A call whose deadline has passed before it is begun is dropped unread: gRPC never frees 96 bytes of each
  call that it tries to read in vain (grpc/grpc#43360), and a storm of such calls would take memory for good.
- A caller that begins a call and sends no request is waited for no longer than `max_call_s`. Once the server
  stops no request is waited for: streams end with what has been read, as UNAVAILABLE.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from convvae_service.calls.runner import CallRunner, Context
from convvae_service.errors import DeadlineExceeded, InvalidInput, ServiceError, Violation

__all__ = ["RequestGuard"]

_UNREADABLE = object()
# Within which gRPC tells that a caller has left, after it has told that no request will come.
_LEFT_S = 0.05
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class RequestGuard:
    """What handlers are added to in place of a server, so that they are given readable requests only."""

    def __init__(self, server: grpc.aio.Server, runner: CallRunner) -> None:
        self._server = server
        self._runner = runner
        # The time limits of those who wait for a request now.
        self._waiting: set[asyncio.Timeout] = set()
        self._ended = False

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Leave them out: `add_registered_method_handlers`, which generated code calls next, has the same."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service."""
        guarded = {name: self._guard(name, handler) for name, handler in handlers.items()}
        generic = grpc.method_handlers_generic_handler(service, guarded)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_registered_method_handlers(service, guarded)

    def end(self) -> None:
        """Wait for no request any more: calls whose request is not there yet are refused as UNAVAILABLE."""
        self._ended = True
        for limit in self._waiting:
            limit.reschedule(asyncio.get_running_loop().time())

    def _guard(self, name: str, handler: Handler) -> Handler:
        # The trick: all are given to gRPC as methods that read a stream. A single request gRPC reads itself,
        # before it asks the handler; a stream's it leaves to the handler. A caller sees no difference.
        make, behave = {
            (False, False): (grpc.stream_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.stream_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }[handler.request_streaming, handler.response_streaming]
        if inspect.isasyncgenfunction(behave):
            behave = _write_all(behave)
        if not inspect.iscoroutinefunction(behave):
            # Of these there are the ones alone that nobody implements.
            return handler

        async def guarded(requests: AsyncIterator[Any], context: Context) -> Any:
            self._runner.drop_if_expired(name, context)
            try:
                request = await self._next(requests, at_most_s=self._runner.max_call_s)
            except StopAsyncIteration:
                # Of a caller that has left too. That cancels this call, and nothing is sent in vain.
                self._runner.count_arrival()
                await asyncio.sleep(_LEFT_S)
                return await self._runner.refuse(name, _invalid("is missing"), context)
            except ServiceError as error:
                return await self._runner.refuse(name, error, context)
            return await behave(request, context)

        async def guarded_stream(requests: AsyncIterator[Any], context: Context) -> Any:
            readable = _Readable(lambda: self._next(requests, at_most_s=None))
            result = await behave(readable, context)
            # What came before it is answered.
            if readable.error is not None:
                await self._runner.refuse(name, readable.error, context)
            return result

        return make(
            guarded_stream if handler.request_streaming else guarded,
            request_deserializer=_or_unreadable(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    async def _next(self, requests: AsyncIterator[Any], *, at_most_s: float | None) -> Any:
        """Return the next request.

        Raises:
            StopAsyncIteration: There is none.
            ServiceError: It is unreadable, does not come in time, or the server stops.
        """
        try:
            async with asyncio.timeout(0 if self._ended else at_most_s) as limit:
                self._waiting.add(limit)
                try:
                    request = await anext(requests)
                finally:
                    self._waiting.discard(limit)
        except TimeoutError:
            if self._ended:
                raise self._runner.not_ready() from None
            raise DeadlineExceeded(
                f"the call's request did not come within the server's {at_most_s:g} s"
            ) from None
        if request is _UNREADABLE:
            raise _invalid("its bytes are no message of the method's request type")
        return request


class _Readable:
    """The requests of a stream up to the first that cannot be had; `error` says why it has ended early."""

    def __init__(self, read: Callable[[], Awaitable[Any]]) -> None:
        self._read = read
        self.error: ServiceError | None = None

    def __aiter__(self) -> "_Readable":
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._read()
        except ServiceError as error:
            self.error = error
            raise StopAsyncIteration from None


def _write_all(generate: Callable[..., AsyncIterator[Any]]) -> Callable[..., Awaitable[None]]:
    """Return a coroutine that writes what a generator makes; only then something can come after it."""

    async def write_all(requests: Any, context: Context) -> None:
        async for reply in generate(requests, context):
            await context.write(reply)

    return write_all


def _or_unreadable(deserialize: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNREADABLE

    return read


def _invalid(description: str) -> InvalidInput:
    return InvalidInput([Violation("request", description)])
