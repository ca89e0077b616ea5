"""The connection of the asynchronous client: sends batches of requests and awaits the replies."""

import asyncio
from functools import partial
from typing import Any

import grpc

from convvae.calls.exchanges import RequestBatch
from convvae.errors import Cancelled, ClientClosed
from convvae.transport.channel import ChannelFactory, open_methods
from convvae.transport.forks import FORKS
from convvae.transport.retry import RetryPolicy
from convvae.transport.scheduler import RequestScheduler, TimeLimit
from convvae.transport.status import from_rpc_error

__all__ = ["AsyncConnection"]


class AsyncConnection:
    """One gRPC channel, which belongs to the event loop of its first request."""

    def __init__(self, factory: ChannelFactory, policy: RetryPolicy) -> None:
        self._factory = factory
        self._policy = policy
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._closed = False

    async def close(self) -> None:
        """Close the channel. Batches in flight raise `Cancelled`."""
        self._closed = True
        # gRPC ends with its last channel, and works in a process that is forked after that.
        channel, self._channel, self._methods = self._channel, None, {}
        if channel is not None and not FORKS.refused:
            await channel.close()

    async def send(self, batch: RequestBatch, limit: TimeLimit) -> list[Any]:
        """Send the requests, and return the parsed replies in the same order.

        Raises:
            ConvvaeError: A request failed after all allowed retries, or the connection is closed.
        """
        FORKS.check()
        scheduler = RequestScheduler(batch, self._policy, limit)
        # gRPC ends a request in time, but not where it does not work.
        if len(batch.requests) == 1 and not FORKS.forked:
            await self._send_one(scheduler)
        else:
            await self._send_many(scheduler)
        return scheduler.results

    async def _send_one(self, scheduler: RequestScheduler) -> None:
        # Without the queue and the timer of `_send_many`, this takes two thirds of its time.
        while not scheduler.finished:
            for index, request, remaining_s in scheduler.due():
                rpc = self._start(request.method, request.build(), remaining_s)
                await self._receive(scheduler, index, rpc)
            if not scheduler.finished:
                await asyncio.sleep(scheduler.wait_s())

    async def _send_many(self, scheduler: RequestScheduler) -> None:
        running: dict[int, Any] = {}
        finished: asyncio.Queue[int] = asyncio.Queue()
        try:
            while not scheduler.finished:
                for index, request, remaining_s in scheduler.due():
                    running[index] = self._start(request.method, request.build(), remaining_s)
                    running[index].add_done_callback(partial(_report, finished, index))
                try:
                    async with asyncio.timeout(scheduler.wait_s()):
                        index = await finished.get()
                except TimeoutError:
                    continue
                await self._receive(scheduler, index, running.pop(index))
        finally:
            for rpc in running.values():
                rpc.cancel()

    async def _receive(self, scheduler: RequestScheduler, index: int, rpc: Any) -> None:
        """Await the end of a request, and report it to the scheduler."""
        try:
            reply = await rpc
        except asyncio.CancelledError:
            # gRPC raises this for requests that were cancelled because the channel was closed. Only if the
            # task itself is being cancelled does it belong to the caller.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Cancelled("the client was closed during the call", code="CANCELLED") from None
        except grpc.aio.AioRpcError as error:
            scheduler.failed(index, from_rpc_error(error, self._factory.target))
        else:
            scheduler.succeeded(index, reply)

    def _start(self, method: str, message: Any, timeout_s: float) -> Any:
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._channel is None:
            # Not in __init__: a channel of grpc.aio belongs to the running event loop.
            self._channel = self._factory.open(grpc.aio)
            self._methods = open_methods(self._channel)
        return self._methods[method](message, timeout=timeout_s, metadata=self._factory.metadata)


def _report(finished: asyncio.Queue[int], index: int, rpc: Any) -> None:
    del rpc
    finished.put_nowait(index)
