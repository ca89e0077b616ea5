"""The stages of one loaded model version: functions from a batch of rows to a batch of results.

Dimensions: B = batch, H, W, C = height, width and channels of an image, Z = latent dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import Bundle, BundleError, Manifest, Precision, distortion
from convvae_service.engine.arena import DEFAULT_ARENAS, Arenas
from convvae_service.engine.runtime import choose_provider
from convvae_service.engine.session import Session
from convvae_service.engine.stage_stats import StageStats

__all__ = ["Engine", "Rows", "Stage"]

Rows = tuple[NDArray[Any], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Stage:
    """A function of rows. Every input and output array has one row per image. `stats` counts its runs."""

    name: str
    run: Callable[[Rows], Rows]
    stats: StageStats = field(default_factory=StageStats)


class Engine:
    """The encoder and decoder of one model version, as stages. Safe to use from several threads.

    `encode`: image uint8 (B, H, W, C) -> mean, log_variance float32 (B, Z); the mean alone for `ae`.
    `decode`: latent float32 (B, Z) -> image uint8 (B, H, W, C).
    `decode_both`: latent float32 (B, Z) -> image uint8 (B, H, W, C), pixel_mean float32 (B, H, W, C) in 0..1.
    `distort`: latent float32 (B, Z), image uint8 (B, H, W, C) -> distortion float32 (B,) in nats.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: Precision | None = None,
        device: str = "auto",
        threads: int = 1,
        arenas: Arenas = DEFAULT_ARENAS,
    ) -> None:
        """Load the graphs.

        Args:
            bundle: A verified version.
            precision: Precision of the graphs. None takes fp32 if the bundle has it, otherwise its first.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            threads: Number of threads of one run.
            arenas: Settings of each graph's memory.

        Raises:
            BundleError: The bundle lacks the precision, or a graph cannot be loaded or has other inputs or
                outputs than the manifest states.
            StartupError: The device cannot be used.
        """
        manifest = bundle.manifest
        available = manifest.precisions
        if not available:
            raise BundleError("encoder and decoder share no precision")
        self.precision: Precision = precision or available[0]
        if self.precision not in available:
            raise BundleError(f"has no {self.precision} graphs: it has {', '.join(available)}")
        self.manifest: Manifest = manifest
        provider = choose_provider(device, arenas)
        sessions = {
            graph.role: Session(
                bundle.graphs[graph.role, graph.precision],
                graph,
                provider=provider,
                threads=threads,
                arenas=arenas,
                fall_back=device == "auto",
            )
            for graph in manifest.graphs
            if graph.precision == self.precision
        }
        self._encoder: Session | None = sessions["encoder"]
        self._decoder: Session | None = sessions["decoder"]
        self._encoder_outputs = ["mean", "log_variance"] if manifest.has_log_variance else ["mean"]
        self.provider: str = sessions["encoder"].provider
        # A GPU prepares its kernels for each new shape. So batches are padded to a few shapes, and all shapes
        # are warmed before the first call.
        self._pads = self.provider != "CPUExecutionProvider"
        self.encode = Stage("encode", self._encode)
        self.decode = Stage("decode", self._decode)
        self.decode_both = Stage("decode", self._decode_both)
        self.distort = Stage("distort", self._distort)

    def warm(self, max_batch_rows: int) -> None:
        """Run every stage once for each batch shape that the device prepares kernels for.

        Raises:
            BundleError: A graph fails, returns another shape than the manifest states, or makes numbers that
                are not finite from rows of zeros.
        """
        shape, latent_dim = self.manifest.image, self.manifest.latent_dim
        sizes = (
            [1 << power for power in range((max_batch_rows - 1).bit_length() + 1)] if self._pads else [1, 2]
        )
        for rows in sizes:
            images = np.zeros((rows, *shape.as_tuple), np.uint8)
            latents = np.zeros((rows, latent_dim), np.float32)
            for stage, inputs in (
                (self.encode, (images,)),
                (self.decode, (latents,)),
                (self.distort, (latents, images)),
            ):
                try:
                    results = stage.run(inputs)
                except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class
                    reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
                    raise BundleError(f"its graphs load but fail to {stage.name}: {reason}") from None
                if not all(np.isfinite(result).all() for result in results):
                    raise BundleError(f"its graphs {stage.name} rows of zeros to numbers that are not finite")

    def interrupt(self) -> None:
        """End all runs with an error, the present ones after their present operator. Any thread may call."""
        for session in (self._encoder, self._decoder):
            if session is not None:
                session.interrupt()

    def close(self) -> None:
        """Release the graphs' memory. A run in progress is not interrupted."""
        # Stages and engine refer to each other. Without this the memory would wait for the garbage collector.
        self._encoder = self._decoder = None

    def _run(self, session: Any, outputs: list[str], name: str, rows_B: NDArray[Any]) -> Rows:
        batch = len(rows_B)
        padding = (1 << (batch - 1).bit_length()) - batch if self._pads else 0
        if padding:
            rows_B = np.concatenate((rows_B, np.zeros((padding, *rows_B.shape[1:]), rows_B.dtype)))
        results = session.run(outputs, name, rows_B)
        for output, result in zip(outputs, results, strict=True):
            if result.shape != (batch + padding, *session.row_shapes[output]):
                raise RuntimeError(f"{name}: {batch + padding} rows in, {output} of shape {result.shape} out")
        return tuple(result[:batch] for result in results)

    def _encode(self, rows: Rows) -> Rows:
        return self._run(self._encoder, self._encoder_outputs, "image", rows[0])

    def _decode(self, rows: Rows) -> Rows:
        return self._run(self._decoder, ["image"], "latent", rows[0])

    def _decode_both(self, rows: Rows) -> Rows:
        return self._run(self._decoder, ["image", "pixel_mean"], "latent", rows[0])

    def _decode_mean(self, rows: Rows) -> Rows:
        return self._run(self._decoder, ["pixel_mean"], "latent", rows[0])

    def _distort(self, rows: Rows) -> Rows:
        latents, images = rows
        (pixel_mean,) = self._decode_mean((latents,))
        return (distortion(self.manifest.likelihood, images, pixel_mean),)
