"""The asynchronous client: as `convvae.client`, with `await`."""

import asyncio
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from numpy.typing import ArrayLike

from convvae import results
from convvae.calls import Models, Steps, check_health, list_models, run
from convvae.channel import Connection, open_methods
from convvae.client import ImagesLike
from convvae.config import ClientConfig, RetryConfig, TLSConfig, check_timeout
from convvae.errors import Cancelled, ClientClosed, ConvvaeError
from convvae.flight import Flight, TimeLimit
from convvae.images import check_images
from convvae.inputs import check_latents
from convvae.model_name import ModelName
from convvae.operations import Decode, Encode, Operation, Reconstruct, Sample, Score
from convvae.retry import RetryPolicy
from convvae.status import from_rpc_error

__all__ = ["AsyncClient"]

R = TypeVar("R")


class AsyncClient:
    """Calls a convvae server from asyncio; settings and methods are those of `Client`.

        async with AsyncClient("localhost:50051", model="mnist") as vae:
            z = (await vae.encode(images)).mean

    Belongs to the event loop of its first call. Cancelling a task cancels its requests on the server too.
    """

    def __init__(
        self,
        target: str,
        *,
        model: str = "",
        timeout_s: float = 30.0,
        max_in_flight: int = 4,
        retry: RetryConfig = RetryConfig(),  # noqa: B008 - frozen
        tls: TLSConfig | None = None,
        token: str | None = None,
        allow_insecure_token: bool = False,
        compression: str | None = None,
        follow_health: bool = False,
    ) -> None:
        self._config = ClientConfig(
            target=target,
            model=model,
            timeout_s=timeout_s,
            max_in_flight=max_in_flight,
            retry=retry,
            tls=tls,
            token=token,
            allow_insecure_token=allow_insecure_token,
            compression=compression,
            follow_health=follow_health,
        )
        self._models = Models()
        self._policy = RetryPolicy(retry)
        self._connection = Connection(self._config)
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._closed = False

    async def encode(
        self,
        images: ImagesLike,
        include_log_variance: bool = False,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> results.Encoded:
        """Do as `Client.encode`."""
        return await self._run(Encode(check_images(images), include_log_variance), model, timeout_s)

    async def decode(
        self, latents: ArrayLike, *, model: str | None = None, timeout_s: float | None = None
    ) -> results.Decoded:
        """Do as `Client.decode`."""
        return await self._run(Decode(check_latents(latents)), model, timeout_s)

    async def sample(
        self,
        count: int,
        seed: int | None = None,
        temperature: float = 1.0,
        first_row: int = 0,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> results.Sampled:
        """Do as `Client.sample`."""
        operation = Sample.checked(count, seed, temperature, first_row)
        return await self._run(operation, model, timeout_s)

    async def reconstruct(
        self, images: ImagesLike, *, model: str | None = None, timeout_s: float | None = None
    ) -> results.Reconstructed:
        """Do as `Client.reconstruct`."""
        return await self._run(Reconstruct(check_images(images)), model, timeout_s)

    async def score(
        self,
        images: ImagesLike,
        num_samples: int = 0,
        seed: int | None = None,
        first_row: int = 0,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> results.Scored:
        """Do as `Client.score`."""
        operation = Score.checked(images, num_samples, seed, first_row)
        return await self._run(operation, model, timeout_s)

    async def models(self, *, timeout_s: float | None = None) -> tuple[results.ModelSummary, ...]:
        """Do as `Client.models`."""
        return await self._drive(list_models(), timeout_s)

    async def model(self, *, model: str | None = None, timeout_s: float | None = None) -> results.ModelInfo:
        """Do as `Client.model`."""
        return await self._drive(self._models.fetch(self._name(model)), timeout_s)

    async def health(self, service: str = "", *, timeout_s: float | None = None) -> results.Health:
        """Do as `Client.health`."""
        return await self._drive(check_health(service), timeout_s)

    async def close(self) -> None:
        """Close the connection. Calls in flight raise `Cancelled`."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _name(self, model: str | None) -> ModelName:
        return ModelName.parse(self._config.model if model is None else model)

    async def _run(self, operation: Operation[R], model: str | None, timeout_s: float | None) -> R:
        steps = run(operation, self._name(model), self._models, self._config.max_in_flight)
        return await self._drive(steps, timeout_s)

    async def _drive(self, steps: Steps[R], timeout_s: float | None) -> R:
        limit = TimeLimit(self._config.timeout_s if timeout_s is None else check_timeout(timeout_s))
        try:
            batch = next(steps)
            while True:
                try:
                    replies = await self._send(Flight(batch, self._policy, limit))
                except ConvvaeError as error:
                    batch = steps.throw(error)
                else:
                    batch = steps.send(replies)
        except StopIteration as stop:
            result: R = stop.value
            return result

    async def _send(self, flight: Flight) -> list[Any]:
        flying: dict[int, Any] = {}
        ended: asyncio.Queue[int] = asyncio.Queue()
        try:
            while not flight.finished:
                for index, call, remaining_s in flight.due():
                    request = call.build()
                    flying[index] = self._start(call.method, request, remaining_s)
                    flying[index].add_done_callback(partial(_report, ended, index))
                try:
                    async with asyncio.timeout(flight.wait_s()):
                        index = await ended.get()
                except TimeoutError:
                    continue
                rpc = flying.pop(index)
                try:
                    reply = await rpc
                except asyncio.CancelledError:
                    # The request has ended, so this is no cancellation of the task, unless one is under way:
                    # gRPC raises it for requests that closing the channel cancelled.
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    raise Cancelled("the client was closed during the call", code="CANCELLED") from None
                except grpc.aio.AioRpcError as error:
                    flight.failed(index, from_rpc_error(error, self._config.target))
                else:
                    flight.succeeded(index, reply)
        finally:
            for rpc in flying.values():
                rpc.cancel()
        return flight.results

    def _start(self, method: str, request: Any, timeout_s: float) -> Any:
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._channel is None:
            # Here and not in __init__: a channel of grpc.aio belongs to the event loop that runs now.
            self._channel = self._connection.open(grpc.aio)
            self._methods = open_methods(self._channel)
        return self._methods[method](request, timeout=timeout_s, metadata=self._connection.metadata)


def _report(ended: asyncio.Queue[int], index: int, rpc: Any) -> None:
    del rpc
    ended.put_nowait(index)
