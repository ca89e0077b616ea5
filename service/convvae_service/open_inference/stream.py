"""A stream of inferences. Its requests run side by side; replies go out in the order of the requests."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

from convvae_service.batching.pending_bytes import HeldBytes, PendingBytes
from convvae_service.calls.status import Refusal, refusal_of
from convvae_service.errors import Overloaded
from convvae_service.open_inference.graphs import ITEM_BYTES
from open_inference import inference_pb2 as pb

__all__ = ["Infer", "InferStream"]

# Maximum requests of one stream that are in progress; more are not read.
_MAX_IN_PROGRESS = 16
# Maximum bytes of replies that are being computed or wait to be written, for one stream.
_MAX_REPLY_BYTES = 32 << 20
# A request is there as bytes and as a message; a reply as a message and, until it is sent, once more in gRPC.
_COPIES = 2
# A refusal repeats no more characters than this of each name in a request.
_MAX_REPEATED = 256
# An id may have 128 characters, and the ids of requests add their number to the stream's.
_MAX_ID_LENGTH = 110
_EMPTY_FINAL = "triton_enable_empty_final_response"
_FINAL = "triton_final_response"

Infer: TypeAlias = Callable[[pb.ModelInferRequest, str], Awaitable[pb.ModelInferResponse | Refusal]]


class InferStream:
    """One open stream. The reply to a request that fails is an error message, and the stream goes on."""

    def __init__(
        self,
        infer: Infer,
        requests: AsyncIterator[pb.ModelInferRequest],
        write: Callable[[pb.ModelStreamInferResponse], Awaitable[None]],
        *,
        request_id: str,
        account: PendingBytes,
    ) -> None:
        """Take over a stream.

        Args:
            infer: Answers one request, given its id.
            requests: The requests of the caller.
            write: Sends one reply.
            request_id: The id of the stream. Its requests have `.1`, `.2` and so on after it.
            account: Counts each request from its arrival until its reply is written.
        """
        self._infer = infer
        self._requests = requests
        self._write = write
        self._request_id = request_id[:_MAX_ID_LENGTH]
        self._pending: asyncio.Queue[_PendingReply | None] = asyncio.Queue()
        self._account = account
        self._unwritten: set[_PendingReply] = set()
        self._budget = _ReplyBudget()

    async def serve(self) -> None:
        """Answer until the caller has sent its last request, or leaves."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(tasks))
                while (pending := await self._pending.get()) is not None:
                    await self._write(await pending.reply)
                    self._budget.release(pending)
                    self._release(pending)
                    # The next one may be long in coming, and this one has its reply.
                    del pending
        finally:
            for pending in tuple(self._unwritten):
                self._release(pending)

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        number = 0
        try:
            async for request in self._requests:
                number += 1
                pending = _PendingReply(request, self._account.hold())
                self._unwritten.add(pending)
                pending.reply = tasks.create_task(self._answer(request, pending, number))
                self._pending.put_nowait(pending)
                del request
                # Wait after the request that was read, so that no request is read and then dropped.
                await pending.started.wait()
                del pending
                await self._budget.wait_for_place()
        finally:
            self._pending.put_nowait(None)

    async def _answer(
        self, request: pb.ModelInferRequest, pending: "_PendingReply", number: int
    ) -> pb.ModelStreamInferResponse:
        request_id = f"{self._request_id}.{number}"
        reply = await self._reply_to(request, pending, request_id)
        if isinstance(reply, Refusal):
            self._budget.settle(pending, None)
            pending.held.keep(0)
            return pb.ModelStreamInferResponse(
                error_message=f"{reply.code}: {reply.message} (request id {request_id})",
                infer_response=pb.ModelInferResponse(
                    model_name=request.model_name[:_MAX_REPEATED],
                    model_version=request.model_version[:_MAX_REPEATED],
                    id=request.id[:_MAX_REPEATED],
                ),
            )
        self._budget.settle(pending, reply)
        pending.held.keep(_COPIES * reply.ByteSize())
        if _EMPTY_FINAL in request.parameters and request.parameters[_EMPTY_FINAL].bool_param:
            reply.parameters[_FINAL].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=reply)

    async def _reply_to(
        self, request: pb.ModelInferRequest, pending: "_PendingReply", request_id: str
    ) -> pb.ModelInferResponse | Refusal:
        try:
            pending.held.add(_COPIES * request.ByteSize())
        except Overloaded as error:
            # It gets no work, and so no reply of its size.
            pending.rows = 0
            await self._budget.reserve(pending)
            return refusal_of(error)
        await self._budget.reserve(pending)
        return await self._infer(request, request_id)

    def _release(self, pending: "_PendingReply") -> None:
        self._unwritten.discard(pending)
        pending.held.release()


class _PendingReply:
    """A reply that is being computed, or waits to be written."""

    reply: asyncio.Task[pb.ModelStreamInferResponse]

    def __init__(self, request: pb.ModelInferRequest, held: HeldBytes) -> None:
        self.held = held
        self.started = asyncio.Event()
        # Replies of one kind have the same number of bytes per row.
        outputs = tuple(output.name for output in request.outputs)
        self.kind = (request.model_name, request.model_version, outputs)
        shape = request.inputs[0].shape if request.inputs else ()
        self.rows = max(0, shape[0]) if shape else 0
        # An estimate until the reply is ready.
        self.num_bytes = 0


class _ReplyBudget:
    """Limits on the pending replies of one stream: their number and their bytes."""

    def __init__(self) -> None:
        self._count = 0
        self._num_bytes = 0
        self._row_bytes: dict[tuple[Any, ...], float] = {}
        self._released = asyncio.Event()

    async def wait_for_place(self) -> None:
        """Wait until there is a place for one more reply, whatever its size."""
        while self._count >= _MAX_IN_PROGRESS:
            await self._wait_for_release()

    async def reserve(self, pending: _PendingReply) -> None:
        """Wait until there is room for a reply, and start it. The first of a kind needs all the room."""
        self._count += 1
        while True:
            row_bytes = self._row_bytes.get(pending.kind, _MAX_REPLY_BYTES)
            pending.num_bytes = min(_MAX_REPLY_BYTES, math.ceil(pending.rows * row_bytes))
            # A reply above the limit runs alone.
            if self._num_bytes + pending.num_bytes <= _MAX_REPLY_BYTES:
                break
            await self._wait_for_release()
        self._num_bytes += pending.num_bytes
        pending.started.set()

    def settle(self, pending: _PendingReply, reply: pb.ModelInferResponse | None) -> None:
        """Replace the estimate by the bytes of the reply; None stands for an error message."""
        num_bytes = 0
        for output in reply.outputs if reply is not None else ():
            num_bytes += math.prod(output.shape) * ITEM_BYTES[output.datatype]
        if reply is not None and pending.rows:
            self._row_bytes[pending.kind] = num_bytes / pending.rows
        self._num_bytes += num_bytes - pending.num_bytes
        pending.num_bytes = num_bytes
        self._released.set()

    def release(self, pending: _PendingReply) -> None:
        """Give back the room of a reply that is written."""
        self._count -= 1
        self._num_bytes -= pending.num_bytes
        self._released.set()

    async def _wait_for_release(self) -> None:
        self._released.clear()
        await self._released.wait()
