"""An encoder that runs a bundle in this process."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import BundleError, ImageShape, Precision, rate, read_bundle
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.stages import Engine
from convvae_service.errors import StartupError
from convvae_service.pipeline.encoder import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import BadModel, RunFailed

__all__ = ["CPU_CALL_ROWS", "GPU_BATCH_ROWS", "LocalEncoder", "batch_rows_on_cpu"]

_CPU = "CPUExecutionProvider"
# More rows leave the caches: a row of 28x28x1 takes 29.6, 29.1, 29.9 and 32.9 us of a CPU in calls of 32, 64,
# 128 and 256 rows, and one of 64x64x3 takes 174, 183, 192 and 199 us.
CPU_CALL_ROWS = 64
_CPU_BATCH_ROWS = (128, 512)
_CPU_BATCH_BYTES = 3 << 19
GPU_BATCH_ROWS = 1024
GPU_LANES = 2


class LocalEncoder:
    """The encoder of a bundle, in this process; see `ImageEncoder`.

    Args:
        folder: `ROOT/MODEL/VERSION`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: Precision of the graph. None takes fp32 if the bundle has it, otherwise its first.
        threads: Number of CPU threads. None takes the CPUs that the process may use.

    Raises:
        BadModel: The bundle or the device cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        precision: Precision | None = None,
        threads: int | None = None,
    ) -> None:
        try:
            bundle = read_bundle(folder)
            # One call per core with one thread each is faster than many threads in one call.
            self._engine = Engine(bundle, precision=precision, device=device, threads=1)
        except BundleError as error:
            raise BadModel(f"bundle {folder.parent.name}/{folder.name}: {error}") from None
        except StartupError as error:
            raise BadModel(str(error)) from None
        self.info = EncoderInfo.of(bundle.manifest, version=bundle.version, precision=self._engine.precision)
        on_cpu = self._engine.provider == _CPU
        self.lanes = (threads or available_cpus()) if on_cpu else GPU_LANES
        self.batch_rows = batch_rows_on_cpu(bundle.manifest.image) if on_cpu else GPU_BATCH_ROWS
        self._call_rows = CPU_CALL_ROWS if on_cpu else None

    def encode(
        self, images_BHWC: NDArray[np.uint8], *, log_variance: bool, score: bool = False
    ) -> Embeddings:
        """Encode images; see `ImageEncoder`."""
        step = self._call_rows or len(images_BHWC)
        calls = [images_BHWC[start : start + step] for start in range(0, len(images_BHWC), step)]
        parts = [self._encode(images, log_variance=log_variance, score=score) for images in calls]
        columns: Any = (
            None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True)
        )
        return Embeddings(*columns)

    def _encode(self, images_BHWC: NDArray[np.uint8], *, log_variance: bool, score: bool) -> Embeddings:
        distortion_B = None
        try:
            mean_BZ, *rest = self._engine.encode.run((images_BHWC,))
            if score:
                (distortion_B,) = self._engine.distort.run((mean_BZ, images_BHWC))
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class
            raise RunFailed(f"ONNX Runtime: {str(error).splitlines()[0][:300]}") from None
        rate_B = rate(mean_BZ, rest[0]) if score else None
        return Embeddings(mean_BZ, rest[0] if log_variance else None, distortion_B, rate_B)

    def check(self) -> None:
        """Do nothing: what is loaded stays."""

    def close(self) -> None:
        """Do nothing: a call takes only milliseconds."""


def batch_rows_on_cpu(shape: ImageShape) -> int:
    """Return the number of images that are read, decoded and encoded together: many if they are small.

    A batch costs half a millisecond beside its images. Its pixels stay below 1.5 MiB, or it has 128 images.
    """
    least, most = _CPU_BATCH_ROWS
    return max(least, min(most, _CPU_BATCH_BYTES // shape.num_values))
