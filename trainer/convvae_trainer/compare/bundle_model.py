"""A published model that runs in ONNX Runtime on the CPU, as the service runs it.

N = images, H and W = height and width, C = channels, Z = latent dimension.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import METRICS_FILE, BundleError, Manifest, read_bundle
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.stages import Engine, Rows, Stage
from convvae_trainer.compare.published import PublishedVersion
from convvae_trainer.data.chunking import chunk_size, chunks
from convvae_trainer.exports.onnx_runtime import engine_errors

__all__ = ["BundleModel", "open_model"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleModel:
    """A version with its graphs loaded; it runs in chunks, so that memory is bounded. See `open_model`."""

    published: PublishedVersion
    engine: Engine

    @property
    def manifest(self) -> Manifest:
        """The version's manifest."""
        return self.published.manifest

    def encode(
        self, images_NHWC: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return posterior means and log-variances, both (N, Z); for an autoencoder the codes and None."""
        outputs = self._run(self.engine.encode, images_NHWC)
        return outputs[0], outputs[1] if len(outputs) > 1 else None

    def decode(self, latent_NZ: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the decoded images, uint8 of shape (N, H, W, C)."""
        images_NHWC: NDArray[np.uint8] = self._run(self.engine.decode, latent_NZ)[0]
        return images_NHWC

    def distortion(
        self, images_NHWC: NDArray[np.uint8], latent_NZ: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return -log p(x|z) of images given latents, in nats per image, of shape (N,)."""
        distortion_N: NDArray[np.float32] = self._run(self.engine.distort, latent_NZ, images_NHWC)[0]
        return distortion_N

    def _run(self, stage: Stage, *inputs: NDArray[Any]) -> Rows:
        parts = [
            stage.run(tuple(np.ascontiguousarray(rows[chunk]) for rows in inputs))
            for chunk in self._chunks(len(inputs[0]))
        ]
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))

    def _chunks(self, count: int) -> Iterator[slice]:
        # The manifest does not say how wide the networks are: assume the default width.
        return chunks(count, chunk_size(*self.manifest.image.as_tuple))

    def loss_curves(self) -> list[dict[str, Any]]:
        """Return the metrics of each training epoch that the bundle holds, up to the first damaged line.

        The list is empty if the bundle has no metrics file, or one that cannot be read.
        """
        try:
            text = (self.published.folder / METRICS_FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return []
        epochs = []
        for line in text.splitlines():
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(values, dict):
                break
            if values.get("kind") == "epoch" and type(values.get("epoch")) in (int, float):
                epochs.append(values)
        return epochs


def open_model(published: PublishedVersion) -> BundleModel:
    """Read and verify the version, and load its graphs on the CPU.

    Raises:
        BundleError: A file is missing or damaged, or ONNX Runtime cannot load a graph.
        MissingExtra: ONNX Runtime is not installed.
    """
    try:
        bundle = read_bundle(published.folder)
        with engine_errors():
            engine = Engine(bundle, precision=published.precision, device="cpu", threads=available_cpus())
    except BundleError as error:
        raise BundleError(f"{published.folder}: {error}") from None
    return BundleModel(published=published, engine=engine)
