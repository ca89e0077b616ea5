"""A stream of inferences: answered side by side, in the order of the requests, each as a call of its own."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn, cast

import grpc

from convvae_service.calls.runner import REQUEST_ID_KEY, Context
from open_inference import inference_pb2 as pb

__all__ = ["InferStream"]

# Requests of one stream that are answered at the same time; more are not read.
_MAX_AT_ONCE = 16
# Of replies that wait to be written or are being made: as much as two messages of the default limit. Room in
# the queue is given back when a reply is made, however slowly that is read.
_MAX_AHEAD_BYTES = 128 << 20
_ITEM_BYTES = {"UINT8": 1, "FP32": 4}
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
        self._replies: asyncio.Queue[_Answer | None] = asyncio.Queue()
        self._ahead = _Ahead()

    async def serve(self) -> None:
        """Answer until the caller has sent its last request, or leaves."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(tasks))
            while (answer := await self._replies.get()) is not None:
                await self._context.write(await answer.reply)
                self._ahead.leave(answer)

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        number = 0
        try:
            async for request in self._requests:
                number += 1
                answer = _Answer(request)
                answer.reply = tasks.create_task(self._answer(request, answer, number))
                self._replies.put_nowait(answer)
                # Only after each request that is read, so that none is read and then dropped.
                await answer.begun.wait()
                await self._ahead.room()
        finally:
            self._replies.put_nowait(None)

    async def _answer(
        self, request: pb.ModelInferRequest, answer: "_Answer", number: int
    ) -> pb.ModelStreamInferResponse:
        await self._ahead.enter(answer)
        request_id = f"{self._request_id}.{number}"
        own = _RequestContext(self._context, request_id)
        try:
            # It has what `CallRunner` asks of a context, and passes the rest on.
            reply = await self._infer(request, cast("Context", own))
        except _Refused as refused:
            self._ahead.settle(answer, None)
            return pb.ModelStreamInferResponse(
                error_message=f"{refused.code.name}: {refused} (request id {request_id})",
                infer_response=pb.ModelInferResponse(
                    model_name=request.model_name, model_version=request.model_version, id=request.id
                ),
            )
        self._ahead.settle(answer, reply)
        if _EMPTY_FINAL in request.parameters and request.parameters[_EMPTY_FINAL].bool_param:
            reply.parameters[_FINAL].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=reply)


class _Answer:
    """A request on its way to a reply."""

    reply: asyncio.Task[pb.ModelStreamInferResponse]

    def __init__(self, request: pb.ModelInferRequest) -> None:
        self.begun = asyncio.Event()
        # What the bytes of a row's reply hang on.
        outputs = tuple(output.name for output in request.outputs)
        self.kind = (request.model_name, request.model_version, outputs)
        shape = request.inputs[0].shape if request.inputs else ()
        self.rows = max(0, shape[0]) if shape else 0
        # Of its reply: as expected, and as it is once that is made.
        self.num_bytes = 0


class _Ahead:
    """What of a stream is being answered or waits to be written: limited in number and in bytes."""

    def __init__(self) -> None:
        self._count = 0
        self._num_bytes = 0
        self._row_bytes: dict[tuple[Any, ...], float] = {}
        self._left = asyncio.Event()

    async def room(self) -> None:
        """Wait until there is room for one more, of whatever size."""
        while self._count >= _MAX_AT_ONCE:
            await self._change()

    async def enter(self, answer: _Answer) -> None:
        """Wait until there is room for an answer, and begin it; one of an unknown kind takes all room."""
        self._count += 1
        while True:
            row_bytes = self._row_bytes.get(answer.kind, _MAX_AHEAD_BYTES)
            answer.num_bytes = min(_MAX_AHEAD_BYTES, math.ceil(answer.rows * row_bytes))
            # Nothing ahead is also room, for one that is larger than all.
            if self._num_bytes + answer.num_bytes <= _MAX_AHEAD_BYTES:
                break
            await self._change()
        self._num_bytes += answer.num_bytes
        answer.begun.set()

    def settle(self, answer: _Answer, reply: pb.ModelInferResponse | None) -> None:
        """Count a reply that is made, or an error where there is none, with the bytes that it has."""
        made = 0
        for output in reply.outputs if reply is not None else ():
            made += math.prod(output.shape) * _ITEM_BYTES[output.datatype]
        if reply is not None and answer.rows:
            self._row_bytes[answer.kind] = made / answer.rows
        self._num_bytes += made - answer.num_bytes
        answer.num_bytes = made
        self._left.set()

    def leave(self, answer: _Answer) -> None:
        """Give back the room of an answer that is written."""
        self._count -= 1
        self._num_bytes -= answer.num_bytes
        self._left.set()

    async def _change(self) -> None:
        self._left.clear()
        await self._left.wait()


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
