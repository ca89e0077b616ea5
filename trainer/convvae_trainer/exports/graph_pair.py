"""The two graphs of one precision, which run in chunks on the CPU, so that memory is bounded.

N = images, H and W = height and width, C = channels, Z = latent dimension.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, Precision, Role
from convvae_trainer.data.chunking import chunk_size, chunks
from convvae_trainer.exports.onnx_runtime import open_session

__all__ = ["GraphPair", "Posterior"]

# Posterior means and log-variances, float32 of shape (N, Z). An autoencoder has no log-variances.
Posterior = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class GraphPair:
    """An encoder and a decoder in one precision.

    Args:
        graphs: ONNX bytes by role.
        precision: Their precision, for messages.
        image: The shape of an image.
        has_log_variance: Whether the encoder returns a log-variance beside the mean.

    Raises:
        BundleError: ONNX Runtime cannot load a graph.
    """

    def __init__(
        self,
        graphs: Mapping[Role, bytes],
        *,
        precision: Precision,
        image: ImageShape,
        has_log_variance: bool,
    ) -> None:
        self._sessions = {
            role: open_session(data, name=f"the {precision} {role}") for role, data in graphs.items()
        }
        self._rows = chunk_size(*image.as_tuple)
        self._image, self._has_log_variance = image, has_log_variance
        self._posterior = ["mean", "log_variance"] if has_log_variance else ["mean"]

    def with_graphs(self, graphs: Mapping[Role, bytes], *, precision: Precision) -> "GraphPair":
        """Return the pair of the same model in another precision."""
        return GraphPair(
            graphs, precision=precision, image=self._image, has_log_variance=self._has_log_variance
        )

    def chunks(self, count: int) -> Iterator[slice]:
        """Return the slices in which `count` rows are computed."""
        return chunks(count, self._rows)

    def encode(self, images_NHWC: NDArray[np.uint8]) -> Posterior:
        """Return the posterior of images."""
        outputs = self._run("encoder", "image", images_NHWC, self._posterior)
        return outputs[0], outputs[1] if len(outputs) > 1 else None

    def decode(self, latent_NZ: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return images, uint8 of shape (N, H, W, C), and their pixel means in 0..1, float32."""
        image_NHWC, mean_NHWC = self._run("decoder", "latent", latent_NZ, ["image", "pixel_mean"])
        return image_NHWC, mean_NHWC

    def _run(self, role: Role, name: str, rows: NDArray[Any], outputs: Sequence[str]) -> list[NDArray[Any]]:
        session = self._sessions[role]
        parts = [
            session.run(outputs, {name: np.ascontiguousarray(rows[chunk])})
            for chunk in self.chunks(len(rows))
        ]
        return [np.concatenate(output) for output in zip(*parts, strict=True)]
