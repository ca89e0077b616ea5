"""The synchronous client: opens the channel, sends what `convvae.calls` asks for, and waits."""

import queue
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import numpy as np
from numpy.typing import ArrayLike, NDArray

from convvae import results
from convvae.calls import Batch, Models, Steps, check_health, list_models, run
from convvae.channel import Connection, open_methods
from convvae.config import ClientConfig, RetryConfig, TLSConfig, check_timeout
from convvae.errors import Cancelled, ClientClosed, ConvvaeError
from convvae.flight import Flight, TimeLimit
from convvae.images import check_images
from convvae.inputs import check_latents
from convvae.model_name import ModelName
from convvae.operations import Decode, Encode, Operation, Reconstruct, Sample, Score
from convvae.retry import RetryPolicy
from convvae.status import from_rpc_error

__all__ = ["Client", "ImagesLike"]

R = TypeVar("R")
ImagesLike = NDArray[np.uint8] | Sequence[bytes | Path]


class Client:
    """Calls a convvae server; numpy in, numpy out. May be used by several threads at once.

        with Client("localhost:50051", model="mnist") as vae:
            z = vae.encode(images).mean

    Every method takes `model`, to use another than the client's, and `timeout_s`. Arrays of any length are
    cut into requests that the server accepts; one version of the model answers all of them.

    Args:
        target: `HOST:PORT`, or any target of gRPC. A name with several addresses is used in turn.
        model: `NAME`, `NAME@VERSION`, or empty for the server's only model.
        timeout_s: How long a request and its retries may take, in seconds. A call that fits in
            `max_in_flight` requests ends within `timeout_s`, one of n requests within
            `timeout_s` x ceil(n / `max_in_flight`).
        max_in_flight: Most requests of one call that are sent before the first of them is answered.
        retry: Rules of repeating requests. `RetryConfig(retries=0)` turns it off.
        tls: Encrypts the connection. None: plain text.
        token: Bearer token. In plain text only to this machine, unless `allow_insecure_token`.
        allow_insecure_token: Whether the token may cross the network unencrypted.
        compression: `gzip` or `deflate` for requests; pays off on slow networks only.
        follow_health: Whether servers that report NOT_SERVING get no calls, so that one of several addresses
            can drain without a failed call. Not behind a proxy that spreads calls over servers: one that
            drains would speak for all. While none serves, every call fails as `Unavailable`, `health` too.

    Raises:
        InvalidInput: A setting is out of its range, or the token would travel unencrypted.
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
        self._channel = self._connection.open(grpc)
        self._methods = open_methods(self._channel)
        self._left: list[grpc.Channel] = []
        self._closed = False

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
            images: uint8 array (N, H, W, C) of the model's size, (N, H, W) for a grey model, or a list of
                JPEG, PNG or WebP files as bytes or `pathlib.Path`, of any size.
            include_log_variance: Whether to return `log_variance` as well.
            model: `NAME` or `NAME@VERSION` instead of the client's.
            timeout_s: Instead of the client's.
        """
        return self._run(Encode(check_images(images), include_log_variance), model, timeout_s)

    def decode(
        self, latents: ArrayLike, *, model: str | None = None, timeout_s: float | None = None
    ) -> results.Decoded:
        """Map latent vectors, finite numbers of shape (N, Z), to images."""
        return self._run(Decode(check_latents(latents)), model, timeout_s)

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
            count: Number of images, 1 or above.
            seed: 0 to 2^64 - 1. None: a new one, which the result names. Row i of a seed is the same latent
                vector in every call.
            temperature: Standard deviation of the noise, 0 or above.
            first_row: Index of the first row; rows 100 to 199 are `sample(100, first_row=100)`.
            model: `NAME` or `NAME@VERSION` instead of the client's.
            timeout_s: Instead of the client's.
        """
        operation = Sample.checked(count, seed, temperature, first_row)
        return self._run(operation, model, timeout_s)

    def reconstruct(
        self, images: ImagesLike, *, model: str | None = None, timeout_s: float | None = None
    ) -> results.Reconstructed:
        """Encode images, as `encode` takes them, and decode their posterior means."""
        return self._run(Reconstruct(check_images(images)), model, timeout_s)

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
            images: As `encode` takes them.
            num_samples: Draws to average the distortion over. 0: one evaluation at the posterior mean.
            seed: Seed of the draws, as in `sample`. Used only when `num_samples` is above 0.
            first_row: Index of the first image's draws.
            model: `NAME` or `NAME@VERSION` instead of the client's.
            timeout_s: Instead of the client's.
        """
        operation = Score.checked(images, num_samples, seed, first_row)
        return self._run(operation, model, timeout_s)

    def models(self, *, timeout_s: float | None = None) -> tuple[results.ModelSummary, ...]:
        """List the server's models and their versions, loaded or not."""
        return self._drive(list_models(), timeout_s)

    def model(self, *, model: str | None = None, timeout_s: float | None = None) -> results.ModelInfo:
        """Describe the model, with the limits that the server puts on requests. Always asks the server."""
        return self._drive(self._models.fetch(self._name(model)), timeout_s)

    def health(self, service: str = "", *, timeout_s: float | None = None) -> results.Health:
        """Ask once, without retries, for the health of the server or of one model (`service`)."""
        return self._drive(check_health(service), timeout_s)

    def close(self) -> None:
        """Close the connection. Calls in flight raise `Cancelled`."""
        self._closed = True
        for channel in self._left:
            # It may wait for ever.
            threading.Thread(target=channel.close, daemon=True).start()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _name(self, model: str | None) -> ModelName:
        return ModelName.parse(self._config.model if model is None else model)

    def _run(self, operation: Operation[R], model: str | None, timeout_s: float | None) -> R:
        steps = run(operation, self._name(model), self._models, self._config.max_in_flight)
        return self._drive(steps, timeout_s)

    def _drive(self, steps: Steps[R], timeout_s: float | None) -> R:
        limit = TimeLimit(self._config.timeout_s if timeout_s is None else check_timeout(timeout_s))
        try:
            batch = next(steps)
            while True:
                try:
                    replies = self._send(batch, limit)
                except ConvvaeError as error:
                    batch = steps.throw(error)
                else:
                    batch = steps.send(replies)
        except StopIteration as stop:
            result: R = stop.value
            return result

    def _send(self, batch: Batch, limit: TimeLimit) -> list[Any]:
        flight = Flight(batch, self._policy, limit)
        try:
            if len(batch.calls) == 1:
                self._send_one(flight)
            else:
                self._send_many(flight)
        except ValueError as error:
            # What gRPC raises on a closed channel.
            if self._closed and not isinstance(error, ConvvaeError):
                raise ClientClosed("the client is closed") from None
            raise
        except Exception:
            raise
        except BaseException:
            self._leave_channel()
            raise
        return flight.results

    def _leave_channel(self) -> None:
        """Go on with a new channel after an interrupt.

        Raised within gRPC's own code it may leave a lock of the channel taken, since the end of a `with` on a
        `threading.Condition` can be interrupted: the next call, and closing, would wait for it for ever. The
        old channel is not closed yet, for the calls of other threads.
        """
        if not self._closed:
            self._left.append(self._channel)
            self._channel = self._connection.open(grpc)
            self._methods = open_methods(self._channel)

    def _send_one(self, flight: Flight) -> None:
        # A blocking call takes gRPC two thirds of the time of a future: no second thread has a part in it.
        while not flight.finished:
            for index, call, remaining_s in flight.due():
                try:
                    reply = self._methods[call.method](
                        call.build(), timeout=remaining_s, metadata=self._connection.metadata
                    )
                except grpc.RpcError as error:
                    flight.failed(index, self._error(error))
                else:
                    flight.succeeded(index, reply)
            time.sleep(flight.wait_s() or 0)

    def _send_many(self, flight: Flight) -> None:
        # Futures, driven from the calling thread: a blocking call in a worker thread could not be cancelled
        # when another fails, or at Ctrl-C.
        flying: dict[int, Any] = {}
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        try:
            while not flight.finished:
                for index, call, remaining_s in flight.due():
                    flying[index] = self._methods[call.method].future(
                        call.build(), timeout=remaining_s, metadata=self._connection.metadata
                    )
                    flying[index].add_done_callback(partial(_report, ended, index))
                try:
                    index = ended.get(timeout=flight.wait_s())
                except queue.Empty:
                    continue
                future = flying.pop(index)
                if future.code() is grpc.StatusCode.OK:
                    flight.succeeded(index, future.result())
                else:
                    flight.failed(index, self._error(future))
        finally:
            for future in flying.values():
                future.cancel()

    def _error(self, error: Any) -> ConvvaeError:
        if self._closed and error.code() is grpc.StatusCode.CANCELLED:
            return Cancelled("the client was closed during the call", code="CANCELLED")
        return from_rpc_error(error, self._config.target)


def _report(ended: "queue.SimpleQueue[int]", index: int, future: Any) -> None:
    del future
    ended.put(index)
