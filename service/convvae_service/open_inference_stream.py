"""A stream of inferences: answered side by side, in the order of the requests, each as a call of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn, cast

import grpc

from convvae_service.answer import REQUEST_ID_KEY, Context
from open_inference import inference_pb2 as pb

__all__ = ["InferStream"]

# Requests of one stream that are answered at the same time; more are not read.
_MAX_AT_ONCE = 16
# Of the stream: an id may have 128 characters, with the number of the request behind it.
_MAX_ID_LENGTH = 110
_EMPTY_FINAL = "triton_enable_empty_final_response"
_FINAL = "triton_final_response"

Infer = Callable[[pb.ModelInferRequest, Context], Awaitable[pb.ModelInferResponse]]


class InferStream:
    """One open stream. A request that fails is answered by a message; the stream goes on."""

    def __init__(
        self,
        infer: Infer,
        requests: AsyncIterator[pb.ModelInferRequest],
        context: Context,
        *,
        request_id: str,
    ) -> None:
        """Take a stream.

        Args:
            infer: Answers one request, as a unary call would.
            requests: What comes in.
            context: The stream's.
            request_id: The stream's; its requests have `.1`, `.2` and so on behind it.
        """
        self._infer = infer
        self._requests = requests
        self._context = context
        self._request_id = request_id[:_MAX_ID_LENGTH]
        self._replies: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue()
        # Taken after each request that is read, so that none is read and then dropped.
        self._room = asyncio.Semaphore(_MAX_AT_ONCE - 1)
        self._reader: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Read no more; what has been read is answered, and then the stream ends."""
        if self._reader is not None:
            self._reader.cancel()

    async def serve(self) -> None:
        """Answer until the caller has sent its last request, leaves, or the stream is ended."""
        async with asyncio.TaskGroup() as tasks:
            self._reader = tasks.create_task(self._read(tasks))
            while (answering := await self._replies.get()) is not None:
                await self._context.write(await answering)
                self._room.release()

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        number = 0
        try:
            async for request in self._requests:
                number += 1
                self._replies.put_nowait(tasks.create_task(self._answer(request, number)))
                await self._room.acquire()
        finally:
            self._replies.put_nowait(None)

    async def _answer(self, request: pb.ModelInferRequest, number: int) -> pb.ModelStreamInferResponse:
        request_id = f"{self._request_id}.{number}"
        own = _RequestContext(self._context, request_id)
        try:
            # It has what `Answering` asks of a context, and passes the rest on.
            reply = await self._infer(request, cast("Context", own))
        except _Refused as refused:
            return pb.ModelStreamInferResponse(
                error_message=f"{refused.code.name}: {refused} (request id {request_id})",
                infer_response=pb.ModelInferResponse(
                    model_name=request.model_name, model_version=request.model_version, id=request.id
                ),
            )
        if _EMPTY_FINAL in request.parameters and request.parameters[_EMPTY_FINAL].bool_param:
            reply.parameters[_FINAL].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=reply)


class _Refused(Exception):
    """A request of a stream has failed."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class _RequestContext:
    """The context of one request of a stream: what would end the stream fails the request alone."""

    def __init__(self, context: Context, request_id: str) -> None:
        self._context = context
        self._request_id = request_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Return the stream's metadata with the request's own id."""
        given = self._context.invocation_metadata() or ()
        return (*((k, v) for k, v in given if k != REQUEST_ID_KEY), (REQUEST_ID_KEY, self._request_id))

    def set_trailing_metadata(self, metadata: object) -> None:
        """Leave the stream's as it is."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()
    ) -> NoReturn:
        """Fail this request."""
        del trailing_metadata
        raise _Refused(code, details)
