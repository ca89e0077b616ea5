"""Encoding through a service."""

import numpy as np
from numpy.typing import NDArray

from convvae import Client, ConvvaeError, RetryConfig
from convvae_service.bundle import BundleError, Manifest
from convvae_service.pipeline.encoders import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import BadModel, RunFailed

__all__ = ["RemoteEncoder"]

START_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 120.0
# A run of hours outlives a restart of the service and gives way to callers who are in a hurry. The budget,
# which spares a server the retries of many clients, would end it: few calls are in flight here.
PATIENCE = RetryConfig(retries=30, budget=1e9)
BATCH_ROWS = 256


class RemoteEncoder:
    """Calls a service for one version of a model; see `Encoder`.

    Args:
        target: `HOST:PORT`.
        model: `MODEL`, `MODEL@VERSION`, or empty for the service's only model.
        in_flight: Calls at one time.

    Raises:
        BadModel: Nobody answers, or there is no such model or version.
    """

    def __init__(self, target: str, model: str = "", *, in_flight: int = 4) -> None:
        try:
            with Client(target, model=model) as client:
                about = client.model(timeout_s=START_TIMEOUT_S)
            self._model = f"{about.model}@{about.version}"
            self._client = Client(target, model=self._model, timeout_s=CALL_TIMEOUT_S, retry=PATIENCE)
        except (ConvvaeError, ValueError) as error:
            raise BadModel(f"{target}: {error}") from None
        try:
            manifest = Manifest.from_json(about.manifest_json)
            self.info = EncoderInfo.of(manifest, version=about.version, precision=about.precision)
        except BundleError as error:
            self._client.close()
            raise BadModel(f"{target}: {error}") from None
        except BadModel:
            self._client.close()
            raise
        self.lanes = in_flight
        self.batch_rows = min(BATCH_ROWS, about.limits.max_rows_per_call or BATCH_ROWS)

    def encode(self, images_BHWC: NDArray[np.uint8], *, log_variance: bool) -> Embeddings:
        """Encode images; see `Encoder`."""
        try:
            encoded = self._client.encode(images_BHWC, include_log_variance=log_variance)
        except ConvvaeError as error:
            raise RunFailed(f"the service failed on {self._model}: {error}") from None
        if encoded.precision != self.info.precision:
            raise RunFailed(f"the service went over to {encoded.precision} during the run")
        return Embeddings(encoded.mean, encoded.log_variance)

    def close(self) -> None:
        """Close the connection; calls in flight fail."""
        self._client.close()
