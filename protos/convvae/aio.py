"""The asynchronous client: the methods of `convvae.client` with `await`."""

from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import ArrayLike

from convvae import results
from convvae.calls.exchanges import Exchange, ModelCache, check_health, list_models, run_operation
from convvae.calls.image_operations import Encode, Reconstruct, Score
from convvae.calls.latent_operations import Decode, Sample
from convvae.calls.operation import Operation
from convvae.coalescing.small_call import small_call
from convvae.coalescing.tasks import TaskCoalescer
from convvae.config import ClientConfig, RetryConfig, TLSConfig, check_timeout
from convvae.errors import ConvvaeError
from convvae.inputs.arguments import check_latents
from convvae.inputs.given_images import ImagesLike, check_images
from convvae.model_name import ModelName
from convvae.transport.asynchronous import AsyncConnection
from convvae.transport.channel import ChannelFactory
from convvae.transport.forks import FORKS
from convvae.transport.retry import RetryPolicy
from convvae.transport.scheduler import TimeLimit

__all__ = ["AsyncClient"]

R = TypeVar("R")


class AsyncClient:
    """A client of a convvae server for asyncio, with the settings and methods of `Client`.

        async with AsyncClient("localhost:50051", model="mnist") as vae:
            z = (await vae.encode(images)).mean

    It belongs to the event loop of its first call. If a task is cancelled, its requests are cancelled on the
    server too.
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
        coalesce: bool = False,
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
            coalesce=coalesce,
        )
        self._models = ModelCache()
        self._connection = AsyncConnection(ChannelFactory(self._config), RetryPolicy(retry))
        self._coalescer = TaskCoalescer(self._send, self._models) if coalesce else None

    async def encode(
        self,
        images: ImagesLike,
        include_log_variance: bool = False,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> results.Encoded:
        """See `Client.encode`."""
        return await self._call(Encode(check_images(images), include_log_variance), model, timeout_s)

    async def decode(
        self, latents: ArrayLike, *, model: str | None = None, timeout_s: float | None = None
    ) -> results.Decoded:
        """See `Client.decode`."""
        return await self._call(Decode(check_latents(latents)), model, timeout_s)

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
        """See `Client.sample`."""
        operation = Sample.checked(count, seed, temperature, first_row)
        return await self._call(operation, model, timeout_s)

    async def reconstruct(
        self, images: ImagesLike, *, model: str | None = None, timeout_s: float | None = None
    ) -> results.Reconstructed:
        """See `Client.reconstruct`."""
        return await self._call(Reconstruct(check_images(images)), model, timeout_s)

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
        """See `Client.score`."""
        operation = Score.checked(images, num_samples, seed, first_row)
        return await self._call(operation, model, timeout_s)

    async def models(self, *, timeout_s: float | None = None) -> tuple[results.ModelSummary, ...]:
        """See `Client.models`."""
        return await self._run_exchange(list_models(), self._limit(timeout_s))

    async def model(self, *, model: str | None = None, timeout_s: float | None = None) -> results.ModelInfo:
        """See `Client.model`."""
        return await self._run_exchange(self._models.fetch(self._name(model)), self._limit(timeout_s))

    async def health(self, service: str = "", *, timeout_s: float | None = None) -> results.Health:
        """See `Client.health`."""
        return await self._run_exchange(check_health(service), self._limit(timeout_s))

    async def close(self) -> None:
        """Close the connection. Calls in flight raise `Cancelled`."""
        if self._coalescer is not None:
            self._coalescer.close()
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process opens a connection of its own.
        return partial(type(self), **self._config.settings()), ()

    @property
    def target(self) -> str:
        """The target, as it was given."""
        return self._config.target

    @property
    def timeout_s(self) -> float:
        """Maximum seconds for a request and its retries."""
        return self._config.timeout_s

    def _name(self, model: str | None) -> ModelName:
        return ModelName.parse(self._config.model if model is None else model)

    def _limit(self, timeout_s: float | None) -> TimeLimit:
        return TimeLimit(self._config.timeout_s if timeout_s is None else check_timeout(timeout_s))

    async def _call(self, operation: Operation[R], model: str | None, timeout_s: float | None) -> R:
        name, limit = self._name(model), self._limit(timeout_s)
        if self._coalescer is not None and (small := small_call(operation)) is not None:
            FORKS.check()
            answer: R = await self._coalescer.call(small, name, limit)
            return answer
        return await self._send(operation, name, limit)

    async def _send(self, operation: Operation[R], name: ModelName, limit: TimeLimit) -> R:
        exchange = run_operation(operation, name, self._models, self._config.max_in_flight)
        return await self._run_exchange(exchange, limit)

    async def _run_exchange(self, exchange: Exchange[R], limit: TimeLimit) -> R:
        try:
            batch = next(exchange)
            while True:
                try:
                    replies = await self._connection.send(batch, limit)
                except ConvvaeError as error:
                    batch = exchange.throw(error)
                else:
                    batch = exchange.send(replies)
        except StopIteration as stop:
            result: R = stop.value
            return result
