"""A guard in front of grpcio's handlers: they get only requests that have arrived and can be read.

- Calls without a request, and bytes in a stream that are not a message of the method's type, are refused,
  counted and logged like any other bad call. gRPC itself would answer UNKNOWN and write a traceback to the
  log, which any caller could provoke.
- A call whose deadline has passed on arrival is dropped unread. gRPC tries to read its request and never
  frees 96 bytes of each such call (grpc/grpc#43360), so a storm of them would use up memory.
- A call without a valid token is refused before its request is read.
- A call with too many metadata is refused at once. gRPC does not count all that HPACK references repeat.
- A caller that opens a call and sends no request has `max_call_s` seconds, and the caller of a stream has
  `max_stream_idle_s` seconds for each message. When the server stops, the guard waits for no request: such
  calls end as UNAVAILABLE, and streams after the requests that have been read.
- Callers that send parts of large messages, and then nothing, are ended before they fill the memory.

The guard works because every method is registered as one that reads a stream. gRPC reads a single request
before it calls the handler, but leaves the requests of a stream to the handler. Callers see no difference.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc

from convvae_service.calls.deadlines import MIN_TIME_LEFT_S
from convvae_service.calls.runner import CallRunner
from convvae_service.calls.running_call import drop_frames
from convvae_service.errors import DeadlineExceeded, InvalidInput, ServiceError, Violation
from convvae_service.observability.grpc_metrics import MethodTotals
from convvae_service.server.auth import Tokens
from convvae_service.server.compression import Unpacking, is_packed
from convvae_service.server.crowd import Crowd
from convvae_service.server.grpc_context import Context, abort, begin_call
from convvae_service.server.message_turns import MessageTurns
from convvae_service.server.metering import Metering, metered
from convvae_service.server.partial_messages import PartialMessages
from convvae_service.server.reads import Reads

__all__ = ["Behaviour", "Read", "RequestGuard"]

Behaviour: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
Read: TypeAlias = Callable[[bytes], Any]

# gRPC reports first that no request will come, and within this time that the caller has left.
_DISCONNECT_DELAY_S = 0.05


class RequestGuard:
    """Guards the handlers of one server.

    Args:
        runner: Counts and logs the calls that are refused here.
        tokens: The tokens that callers must have one of; None accepts everybody.
        unpacking: Unpacks or refuses compressed requests.
        max_stream_idle_s: Maximum seconds for the next message of a stream; 0 for those of one call.
        max_metadata_bytes: Maximum bytes of a call's metadata, counting 32 for each key.
    """

    def __init__(
        self,
        runner: CallRunner,
        tokens: Tokens | None,
        unpacking: Unpacking,
        *,
        max_stream_idle_s: float = 0.0,
        max_metadata_bytes: int = 16_384,
    ) -> None:
        self._runner = runner
        self._tokens = tokens
        self._unpacking = unpacking
        self._max_metadata_bytes = max_metadata_bytes
        turns = MessageTurns()
        self._crowd = Crowd()
        self._reads = Reads(
            at_most_s=runner.max_call_s,
            late=lambda: DeadlineExceeded(
                f"the request of the call did not arrive within the server's limit of {runner.max_call_s:g} s"
            ),
            stopped=runner.not_ready,
            turns=turns,
            crowd=self._crowd,
        )
        idle_s = max_stream_idle_s or runner.max_call_s
        self._stream_reads = Reads(
            at_most_s=idle_s,
            late=lambda: DeadlineExceeded(
                f"the next message of the stream did not arrive within the server's limit of {idle_s:g} s"
                " (max_stream_idle_s)"
            ),
            stopped=runner.not_ready,
            turns=turns,
            crowd=self._crowd,
        )

    def unary(
        self,
        name: str,
        behave: Behaviour,
        *,
        totals: MethodTotals,
        read: Read | None = None,
        needs_token: bool = True,
    ) -> Behaviour:
        """Return a behaviour that reads one request from a stream, and calls `behave` with it.

        `read` makes the message from bytes, or raises `ServiceError`. Without it, `behave` takes and returns
        bytes. Each call is counted in `totals`.
        """

        async def guarded(requests: AsyncIterator[Any], context: Context) -> Any:
            del requests
            with Metering(totals, context) as metering:
                await self._admit(name, context, needs_token=needs_token)
                try:
                    request = await self._request(self._reads, read, context, metering)
                except ServiceError as error:
                    await self._refuse(name, error, context)
                if request is grpc.aio.EOF:
                    # The caller may have disconnected. In that case gRPC cancels this call now.
                    self._runner.count_arrival()
                    await asyncio.sleep(_DISCONNECT_DELAY_S)
                    missing = InvalidInput([Violation("request", "is missing")])
                    await self._refuse(name, missing, context)
                answering = behave(request, context if read is None else metered(context, metering))
                del request
                reply = await answering
                # A behaviour that writes its replies returns none.
                if reply is not None:
                    metering.sent = len(reply) if isinstance(reply, bytes) else reply.ByteSize()
                return reply

        return guarded

    def stream(
        self,
        name: str,
        behave: Callable[..., Any],
        *,
        totals: MethodTotals,
        read: Read | None = None,
        needs_token: bool = True,
    ) -> Behaviour:
        """Return a behaviour that passes on the requests of a stream up to the first bad one.

        The requests before it are answered, and then the stream is refused. `behave` is a coroutine function
        that writes, or an async generator function. `read` and `totals` are as for `unary`.
        """
        serve = _write_all(behave) if inspect.isasyncgenfunction(behave) else behave

        async def guarded(requests: AsyncIterator[Any], context: Context) -> Any:
            # gRPC's iterator would hold each message until the next one arrives.
            del requests
            with Metering(totals, context) as metering:
                await self._admit(name, context, needs_token=needs_token)
                readable = _ReadableRequests(lambda: self._next(read, context, metering))
                await serve(readable, metered(context, metering))
                if readable.error is not None:
                    await self._refuse(name, readable.error, context)
                return None

        return guarded

    def partial_messages(self, *, max_bytes: int, sent: Callable[[], Mapping[str, int]]) -> PartialMessages:
        """Return the watch over the messages that are being read. For the arguments, see there."""
        return PartialMessages(
            (self._reads, self._stream_reads),
            self._runner.pending,
            decoding_bytes=self._runner.decoding_bytes,
            max_bytes=max_bytes,
            sent=sent,
            crowd=self._crowd,
        )

    def stop_reading(self) -> None:
        """Refuse, now and from now on, every call whose request has not arrived, as UNAVAILABLE."""
        self._reads.stop()
        self._stream_reads.stop()

    async def _admit(self, name: str, context: Context, *, needs_token: bool) -> None:
        """End the call by an exception if its request shall not be read."""
        self._drop_if_expired(name, context)
        if excess := self._excess_metadata(context):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, excess)
        if needs_token and self._tokens is not None:
            try:
                self._tokens.check(context.invocation_metadata())
            except ServiceError as error:
                await self._refuse(name, error, context)

    def _drop_if_expired(self, name: str, context: Context) -> None:
        """Raise CancelledError if the deadline has passed. gRPC sends the status itself, at no cost here."""
        left_s = context.time_remaining()
        if left_s is not None and left_s < MIN_TIME_LEFT_S:
            self._runner.count_expired(name)
            raise asyncio.CancelledError

    def _excess_metadata(self, context: Context) -> str:
        """Return why the metadata are too large, or an empty text."""
        size = sum(len(key) + len(value) + 32 for key, value in context.invocation_metadata() or ())
        if size <= self._max_metadata_bytes:
            return ""
        return f"received metadata of about {size} bytes: the maximum is {self._max_metadata_bytes}"

    async def _refuse(self, name: str, error: ServiceError, context: Context) -> NoReturn:
        drop_frames(error)
        call = begin_call(self._runner, name, context)
        await abort(context, call, self._runner.refuse(call, error))

    async def _request(self, reads: Reads, read: Read | None, context: Context, metering: Metering) -> Any:
        """Return the next request without its compression, as a message if `read` makes one.

        Only this frame has its bytes: those of the handler live on in the error that ends a refused call.
        """
        # When the call is over, gRPC's `peer` ends the process. Another thread may look at the reads then.
        data = await reads.run(context.read, context.peer())
        if data is grpc.aio.EOF:
            return data
        metering.received += len(data)
        if is_packed(data):
            data = await self._unpacking.unpack(data)
        return data if read is None else read(data)

    async def _next(self, read: Read | None, context: Context, metering: Metering) -> Any:
        """Return the next request of a stream.

        Raises:
            StopAsyncIteration: The caller sends no more requests.
            ServiceError: The request is unreadable, or the server stops.
        """
        request = await self._request(self._stream_reads, read, context, metering)
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request


class _ReadableRequests:
    """The requests of a stream up to the first bad one; `error` says why they ended early."""

    def __init__(self, read: Callable[[], Awaitable[Any]]) -> None:
        self._read = read
        self.error: ServiceError | None = None

    def __aiter__(self) -> "_ReadableRequests":
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._read()
        except ServiceError as error:
            drop_frames(error)
            self.error = error
            raise StopAsyncIteration from None


def _write_all(generate: Callable[[Any, Context], AsyncIterator[Any]]) -> Behaviour:
    """Return a coroutine function that writes the replies of a generator. A status can still follow them."""

    async def write_all(requests: Any, context: Context) -> None:
        async for reply in generate(requests, context):
            await context.write(reply)

    return write_all
