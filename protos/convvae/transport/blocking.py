"""The connection of the synchronous client: sends batches of requests and waits for the replies."""

import queue
import threading
import time
from functools import partial
from typing import Any

import grpc

from convvae.calls.exchanges import RequestBatch
from convvae.errors import Cancelled, ClientClosed, ConvvaeError
from convvae.transport.channel import ChannelFactory, open_methods
from convvae.transport.forks import FORKS
from convvae.transport.retry import RetryPolicy
from convvae.transport.scheduler import RequestScheduler, TimeLimit
from convvae.transport.status import from_rpc_error

__all__ = ["BlockingConnection"]


class BlockingConnection:
    """One gRPC channel that threads share.

    Attributes:
        closed: Whether `close` was called.
    """

    def __init__(self, factory: ChannelFactory, policy: RetryPolicy) -> None:
        self.closed = False
        self._factory = factory
        self._policy = policy
        self._channel: grpc.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._abandoned: list[grpc.Channel] = []
        if not FORKS.refused:
            self._open()

    def close(self) -> None:
        """Close the channel. Batches in flight raise `Cancelled`."""
        self.closed = True
        if FORKS.refused:
            # The channel is the parent's.
            return
        for channel in self._abandoned:
            # Closing may block for ever; see `_abandon_channel`.
            threading.Thread(target=channel.close, daemon=True).start()
        if self._channel is not None:
            self._channel.close()
        # gRPC ends with its last channel, and works in a process that is forked after that.
        self._channel, self._methods, self._abandoned = None, {}, []

    def send(self, batch: RequestBatch, limit: TimeLimit) -> list[Any]:
        """Send the requests, and return the parsed replies in the same order.

        Raises:
            ConvvaeError: A request failed after all allowed retries, or the connection is closed.
        """
        FORKS.check()
        scheduler = RequestScheduler(batch, self._policy, limit)
        try:
            # A blocking call has no time limit of its own where gRPC does not work.
            if len(batch.requests) == 1 and not FORKS.forked:
                self._send_one(scheduler)
            else:
                self._send_many(scheduler)
        except (ValueError, LookupError) as error:
            # gRPC raises ValueError on a closed channel, and a closed connection has no methods.
            if self.closed and not isinstance(error, ConvvaeError):
                raise ClientClosed("the client is closed") from None
            raise
        except Exception:
            raise
        except BaseException:
            self._abandon_channel()
            raise
        return scheduler.results

    def _abandon_channel(self) -> None:
        """Replace the channel after an interrupt such as Ctrl-C.

        An interrupt inside gRPC's code may leave a lock of the channel held, because the end of a `with` on a
        `threading.Condition` can be interrupted. The next call on that channel, or its `close`, would then
        wait for ever. The old channel stays open for the calls of other threads.
        """
        if not self.closed:
            assert self._channel is not None
            self._abandoned.append(self._channel)
            self._open()

    def _open(self) -> None:
        self._channel = self._factory.open(grpc)
        self._methods = open_methods(self._channel)

    def _send_one(self, scheduler: RequestScheduler) -> None:
        # A blocking call takes two thirds of the time of a future: gRPC needs no second thread for it.
        while not scheduler.finished:
            for index, request, remaining_s in scheduler.due():
                try:
                    reply = self._methods[request.method](
                        request.build(), timeout=remaining_s, metadata=self._factory.metadata
                    )
                except grpc.RpcError as error:
                    scheduler.failed(index, self._error(error))
                else:
                    scheduler.succeeded(index, reply)
            if not scheduler.finished:
                time.sleep(scheduler.wait_s())

    def _send_many(self, scheduler: RequestScheduler) -> None:
        # Futures, not worker threads: a blocking call in a worker could not be cancelled when another request
        # fails, or at Ctrl-C.
        running: dict[int, Any] = {}
        finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        try:
            while not scheduler.finished:
                for index, request, remaining_s in scheduler.due():
                    running[index] = self._methods[request.method].future(
                        request.build(), timeout=remaining_s, metadata=self._factory.metadata
                    )
                    running[index].add_done_callback(partial(_report, finished, index))
                try:
                    index = finished.get(timeout=scheduler.wait_s())
                except queue.Empty:
                    continue
                future = running.pop(index)
                if future.code() is grpc.StatusCode.OK:
                    scheduler.succeeded(index, future.result())
                else:
                    scheduler.failed(index, self._error(future))
        finally:
            for future in running.values():
                future.cancel()

    def _error(self, error: Any) -> ConvvaeError:
        if self.closed and error.code() is grpc.StatusCode.CANCELLED:
            return Cancelled("the client was closed during the call", code="CANCELLED")
        return from_rpc_error(error, self._factory.target)


def _report(finished: "queue.SimpleQueue[int]", index: int, future: Any) -> None:
    del future
    finished.put(index)
