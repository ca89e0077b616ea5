"""An encoder that calls a service."""

import numpy as np
from numpy.typing import NDArray

from convvae import Client, ConvvaeError, DeadlineExceeded, ModelInfo, RetryConfig, TryLater
from convvae.connection.security import Security
from convvae.connection.words import in_command_words
from convvae_service.bundle import BundleError, Manifest
from convvae_service.pipeline.encoder import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import BadModel, NoAnswer, RunFailed

__all__ = ["RemoteEncoder"]

_NO_ANSWER = (TryLater, DeadlineExceeded)

START_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 120.0
# A long run must survive a restart of the service and wait while its queue is full. The retry budget protects
# a server from the retries of many clients. It is not needed here, because few calls are in flight.
RETRY = RetryConfig(retries=30, budget=1e9)
BATCH_ROWS = 256


class RemoteEncoder:
    """The encoder of a service, fixed to one version of a model; see `ImageEncoder`.

    Args:
        target: `HOST:PORT`.
        model: `MODEL`, `MODEL@VERSION`, or empty for the service's only model.
        in_flight: Number of calls at the same time.
        security: How the connection is encrypted, and who calls.

    Raises:
        NoAnswer: The service does not answer.
        BadModel: It has no such model or version.
    """

    def __init__(
        self,
        target: str,
        model: str = "",
        *,
        in_flight: int = 4,
        security: Security = Security(),  # noqa: B008 - it is frozen
    ) -> None:
        settings = security.client_settings()
        try:
            with Client(target, model=model, **settings) as client:
                model_info = client.model(timeout_s=START_TIMEOUT_S)
            self._model = f"{model_info.model}@{model_info.version}"
            self._client = Client(
                target, model=self._model, timeout_s=CALL_TIMEOUT_S, retry=RETRY, **settings
            )
        except (ConvvaeError, ValueError) as error:
            message = in_command_words(str(error))
            # Some errors of the client name the target themselves.
            text = message if message.startswith(target) else f"{target}: {message}"
            raise (NoAnswer if isinstance(error, _NO_ANSWER) else BadModel)(text) from None
        try:
            self.info = _described(model_info)
        except BundleError as error:
            self._client.close()
            raise BadModel(f"{target}: {error}") from None
        except BadModel:
            self._client.close()
            raise
        self.lanes = in_flight
        self.batch_rows = min(BATCH_ROWS, model_info.limits.max_rows_per_call or BATCH_ROWS)

    def encode(
        self, images_BHWC: NDArray[np.uint8], *, log_variance: bool, score: bool = False
    ) -> Embeddings:
        """Encode images; see `ImageEncoder`."""
        distortion_B = rate_B = None
        try:
            encoded = self._client.encode(images_BHWC, include_log_variance=log_variance)
            if score:
                scored = self._client.score(images_BHWC)
                distortion_B, rate_B = scored.distortion, scored.rate
        except ConvvaeError as error:
            raise self._failed(error) from None
        if encoded.precision != self.info.precision:
            raise RunFailed(f"the service switched to {encoded.precision} during the run")
        return Embeddings(encoded.mean, encoded.log_variance, distortion_B, rate_B)

    def check(self) -> None:
        """Check that no other encoder has the version's number by now; see `ImageEncoder`."""
        try:
            now = _described(self._client.model())
        except ConvvaeError as error:
            raise self._failed(error) from None
        except (BundleError, BadModel) as error:
            raise RunFailed(f"the service has changed {self._model} during the run: {error}") from None
        if now != self.info:
            raise RunFailed(
                f"the service has changed {self._model} during the run: its encoder is"
                f" {now.sha256[:12]} {now.precision}, and was {self.info.sha256[:12]} {self.info.precision}"
            )

    def _failed(self, error: ConvvaeError) -> RunFailed:
        kind = NoAnswer if isinstance(error, _NO_ANSWER) else RunFailed
        return kind(f"the service failed on {self._model}: {in_command_words(str(error))}")

    def close(self) -> None:
        """Close the connection. Calls in flight fail."""
        self._client.close()


def _described(model_info: ModelInfo) -> EncoderInfo:
    """Return the encoder of a model of the service. Raise `BundleError` or `BadModel` if it has none."""
    manifest = Manifest.from_json(model_info.manifest_json)
    return EncoderInfo.of(manifest, version=model_info.version, precision=model_info.precision)
