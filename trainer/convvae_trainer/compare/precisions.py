"""The precisions of a version side by side: accuracy beside fp32, size and speed.

All graphs run in ONNX Runtime on all CPUs of this machine.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ROLES, Accuracy, Bundle, BundleError, Precision, read_bundle
from convvae_trainer.compare.published import PublishedVersion
from convvae_trainer.exports.accuracy import Reference
from convvae_trainer.exports.graph_pair import GraphPair

__all__ = ["SPEED_BATCH", "PrecisionFigures", "measure_precisions"]

# The rows of a batch whose speed is measured.
SPEED_BATCH = 64
_TURNS, _TURN_S = 5, 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionFigures:
    """The figures of one precision of a version.

    Attributes:
        label: The version's name in the report.
        precision: The precision.
        psnr_db: Mean PSNR of reconstructions, in dB.
        elbo: ELBO at the posterior mean, in nats per image; None for `ae`.
        accuracy: The change from fp32.
        bytes: Bytes of both graphs.
        encode_rows_s: Images that the encoder takes in a second.
        decode_rows_s: Latents that the decoder takes in a second.
    """

    label: str
    precision: Precision
    psnr_db: float
    elbo: float | None
    accuracy: Accuracy
    bytes: int
    encode_rows_s: float
    decode_rows_s: float


def measure_precisions(
    versions: Sequence[PublishedVersion], images: NDArray[np.uint8]
) -> list[PrecisionFigures]:
    """Measure every precision of the versions that have fp32 and others.

    Args:
        versions: Published versions.
        images: Test images, uint8 of shape (N, H, W, C).

    Raises:
        BundleError: A version is damaged, or ONNX Runtime cannot load a graph.
    """
    figures = []
    for version in versions:
        precisions = version.manifest.precisions
        if len(precisions) > 1 and "fp32" in precisions:
            figures += _measure(version, images)
    return figures


def _measure(version: PublishedVersion, images: NDArray[np.uint8]) -> list[PrecisionFigures]:
    manifest = version.manifest
    try:
        bundle = read_bundle(version.folder)
        pairs = {precision: _pair(bundle, precision) for precision in manifest.precisions}
    except BundleError as error:
        raise BundleError(f"{version.folder}: {error}") from None
    reference = Reference.of(pairs["fp32"], images, likelihood=manifest.likelihood)
    batch = np.resize(images, (SPEED_BATCH, *images.shape[1:]))
    latents = np.resize(reference.posterior[0], (SPEED_BATCH, manifest.latent_dim))
    encode_rows_s = _rows_s({each: partial(pair.encode, batch) for each, pair in pairs.items()})
    decode_rows_s = _rows_s({each: partial(pair.decode, latents) for each, pair in pairs.items()})
    figures = []
    for precision, pair in pairs.items():
        accuracy = reference.accuracy(pair)
        change = accuracy.elbo_change
        figures.append(
            PrecisionFigures(
                label=version.label,
                precision=precision,
                psnr_db=reference.psnr_db - accuracy.psnr_loss_db,
                elbo=None if reference.elbo is None or change is None else reference.elbo + change,
                accuracy=accuracy,
                bytes=sum(graph.bytes for graph in manifest.graphs if graph.precision == precision),
                encode_rows_s=encode_rows_s[precision],
                decode_rows_s=decode_rows_s[precision],
            )
        )
    return figures


def _pair(bundle: Bundle, precision: Precision) -> GraphPair:
    return GraphPair(
        {role: bundle.graphs[role, precision] for role in ROLES},
        precision=precision,
        image=bundle.manifest.image,
        has_log_variance=bundle.manifest.has_log_variance,
    )


def _rows_s(runs: Mapping[Precision, Callable[[], object]]) -> dict[Precision, float]:
    """Return the rows in a second of functions that compute a batch: the best of several turns of each.

    The functions take turns, so that other work on the machine slows all of them down.
    """
    best = dict.fromkeys(runs, 0.0)
    for run in runs.values():
        run()
    for _ in range(_TURNS):
        for precision, run in runs.items():
            count, start_s = 0, time.perf_counter()
            while (elapsed_s := time.perf_counter() - start_s) < _TURN_S:
                run()
                count += 1
            best[precision] = max(best[precision], count * SPEED_BATCH / elapsed_s)
    return best
