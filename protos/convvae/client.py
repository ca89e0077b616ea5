"""The synchronous client: sends the requests of `convvae.calls.exchanges` and waits for the replies."""

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
from convvae.coalescing.threads import ThreadCoalescer
from convvae.config import ClientConfig, RetryConfig, TLSConfig, check_timeout
from convvae.errors import ConvvaeError
from convvae.inputs.arguments import check_latents
from convvae.inputs.given_images import ImagesLike, check_images
from convvae.model_name import ModelName
from convvae.transport.blocking import BlockingConnection
from convvae.transport.channel import ChannelFactory
from convvae.transport.forks import FORKS
from convvae.transport.retry import RetryPolicy
from convvae.transport.scheduler import TimeLimit

__all__ = ["Client"]

R = TypeVar("R")


class Client:
    """A client of a convvae server with numpy arrays in and out. Several threads may share one.

        with Client("localhost:50051", model="mnist") as vae:
            z = vae.encode(images).mean

    Every method takes `model` and `timeout_s`, which replace the client's own for one call. Arrays of any
    length are split into requests that the server accepts. One version of the model answers all of them.

    Args:
        target: `HOST:PORT`, or any gRPC target. If a name has several addresses, calls alternate among them.
        model: `NAME`, `NAME@VERSION`, or empty for the server's only model.
        timeout_s: Maximum seconds for a request and its retries. A call of n requests ends within
            `timeout_s` x ceil(n / `max_in_flight`).
        max_in_flight: Maximum number of requests of one call in flight at the same time.
        retry: Rules for retries. `RetryConfig(retries=0)` turns them off.
        tls: Settings of an encrypted connection. None means plain text.
        token: Bearer token. It is sent in plain text only to this machine, unless `allow_insecure_token`.
        allow_insecure_token: Whether the token may cross the network unencrypted.
        compression: `gzip` for requests, if the server takes it, or None. It helps only on slow networks.
        follow_health: Whether to send no calls to servers that report NOT_SERVING, so that one of several
            addresses can drain without a failed call. Do not use it behind a proxy that balances calls: one
            draining server would then stop the calls to all. While no server serves, every call raises
            `Unavailable`, also `health`.
        coalesce: Whether to join small concurrent calls of one method and model into one request. Each call
            keeps its own rows, time limit and errors. `sample`, and `score` with draws, are never joined.

    Raises:
        InvalidInput: A setting is out of range, or the token would travel unencrypted.
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
        self._connection = BlockingConnection(ChannelFactory(self._config), RetryPolicy(retry))
        self._coalescer = ThreadCoalescer(self._send, self._models) if coalesce else None

    def encode(
        self,
        images: ImagesLike,
        include_log_variance: bool = False,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> results.Encoded:
        """Map images to the parameters of their posterior.

        Args:
            images: uint8 array (N, H, W, C) of the model's size, or (N, H, W) for a grey model. Or one image
                or a list of images: JPEG, PNG or WebP files of any size as paths or bytes, pictures of
                Pillow, or uint8 arrays of the model's size. A folder stands for its image files, sorted.
            include_log_variance: Whether to return `log_variance` as well.
            model: `NAME` or `NAME@VERSION`; None uses the client's.
            timeout_s: Time limit in seconds; None uses the client's.
        """
        return self._call(Encode(check_images(images), include_log_variance), model, timeout_s)

    def decode(
        self, latents: ArrayLike, *, model: str | None = None, timeout_s: float | None = None
    ) -> results.Decoded:
        """Map latent vectors, finite numbers of shape (N, Z), to images."""
        return self._call(Decode(check_latents(latents)), model, timeout_s)

    def sample(
        self,
        count: int,
        seed: int | None = None,
        temperature: float = 1.0,
        first_row: int = 0,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> results.Sampled:
        """Draw images from the prior.

        Args:
            count: Number of images, at least 1.
            seed: 0 to 2^64 - 1. None draws a new seed, which the result contains. Row i of a seed is the same
                latent vector in every call.
            temperature: Standard deviation of the noise, at least 0.
            first_row: Index of the first row. Rows 100 to 199 are `sample(100, first_row=100)`.
            model: `NAME` or `NAME@VERSION`; None uses the client's.
            timeout_s: Time limit in seconds; None uses the client's.
        """
        operation = Sample.checked(count, seed, temperature, first_row)
        return self._call(operation, model, timeout_s)

    def reconstruct(
        self, images: ImagesLike, *, model: str | None = None, timeout_s: float | None = None
    ) -> results.Reconstructed:
        """Encode images and decode their posterior means. `images` is as in `encode`."""
        return self._call(Reconstruct(check_images(images)), model, timeout_s)

    def score(
        self,
        images: ImagesLike,
        num_samples: int = 0,
        seed: int | None = None,
        first_row: int = 0,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> results.Scored:
        """Compute the evidence lower bound of images, in nats per image.

        Args:
            images: As in `encode`.
            num_samples: Number of draws to average the distortion over. 0 uses the posterior mean.
            seed: Seed of the draws, as in `sample`. It is used only when `num_samples` is above 0.
            first_row: Index of the first image's draws.
            model: `NAME` or `NAME@VERSION`; None uses the client's.
            timeout_s: Time limit in seconds; None uses the client's.
        """
        operation = Score.checked(images, num_samples, seed, first_row)
        return self._call(operation, model, timeout_s)

    def models(self, *, timeout_s: float | None = None) -> tuple[results.ModelSummary, ...]:
        """List the server's models and their versions, loaded or not."""
        return self._run_exchange(list_models(), self._limit(timeout_s))

    def model(self, *, model: str | None = None, timeout_s: float | None = None) -> results.ModelInfo:
        """Fetch the description of the model and the server's limits. This always calls the server."""
        return self._run_exchange(self._models.fetch(self._name(model)), self._limit(timeout_s))

    def health(self, service: str = "", *, timeout_s: float | None = None) -> results.Health:
        """Fetch the health of the server, or of one model (`service`). There are no retries."""
        return self._run_exchange(check_health(service), self._limit(timeout_s))

    def close(self) -> None:
        """Close the connection. Calls in flight raise `Cancelled`."""
        if self._coalescer is not None and not FORKS.refused:
            self._coalescer.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def _call(self, operation: Operation[R], model: str | None, timeout_s: float | None) -> R:
        name, limit = self._name(model), self._limit(timeout_s)
        if self._coalescer is not None and (small := small_call(operation)) is not None:
            FORKS.check()
            answer: R = self._coalescer.call(small, name, limit)
            return answer
        return self._send(operation, name, limit)

    def _send(self, operation: Operation[R], name: ModelName, limit: TimeLimit) -> R:
        exchange = run_operation(operation, name, self._models, self._config.max_in_flight)
        return self._run_exchange(exchange, limit)

    def _run_exchange(self, exchange: Exchange[R], limit: TimeLimit) -> R:
        try:
            batch = next(exchange)
            while True:
                try:
                    replies = self._connection.send(batch, limit)
                except ConvvaeError as error:
                    batch = exchange.throw(error)
                else:
                    batch = exchange.send(replies)
        except StopIteration as stop:
            result: R = stop.value
            return result
