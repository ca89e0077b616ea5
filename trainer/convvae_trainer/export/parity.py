"""ONNX Runtime against PyTorch, on the CPU: what is published computes what was trained.

B = batch, C = channels, H and W = height and width, Z = latent dimension.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convvae_service.bundle import Parity, Role
from convvae_trainer.errors import ExportFailed
from convvae_trainer.export.onnx_graph import Graph, open_graph

__all__ = ["BATCHES", "check_parity"]

BATCHES = (1, 2, 7, 33)
# Of latents up to 1, and in proportion of larger ones: float32 computes with a relative error, and an
# autoencoder's codes have no bound.
MAX_LATENT_DIFFERENCE = 1e-4
MAX_IMAGE_STEPS = 1
MAX_PIXEL_MEAN_DIFFERENCE = 1e-4
LATENT_SEED = 0


@torch.no_grad()
def check_parity(
    *, encoder: nn.Module, decoder: nn.Module, graphs: Mapping[Role, bytes], images: NDArray[np.uint8]
) -> Parity:
    """Compare both graphs with PyTorch at batches 1, 2, 7 and 33.

    Encoder inputs are images, all-0 and all-255 images; decoder inputs are their posterior means, and
    draws from the prior.

    Args:
        encoder: PyTorch's, on the CPU: uint8 images to (mean, log-variance).
        decoder: PyTorch's, on the CPU: latents to (image, pixel mean).
        graphs: ONNX bytes by role.
        images: uint8 of shape (N, H, W, C), real ones; they are repeated where 33 are more than there are.

    Returns:
        The largest absolute differences.

    Raises:
        ExportFailed: One of them is above its tolerance; the message names the output and the case.
        MissingExtra: ONNX Runtime is not installed.
    """
    encode, decode = open_graph(graphs["encoder"]), open_graph(graphs["decoder"])
    worst = {"mean": 0.0, "log_variance": 0.0, "image": 0.0, "pixel_mean": 0.0}
    tolerance = {
        "mean": MAX_LATENT_DIFFERENCE,
        "log_variance": MAX_LATENT_DIFFERENCE,
        "image": MAX_IMAGE_STEPS,
        "pixel_mean": MAX_PIXEL_MEAN_DIFFERENCE,
    }

    def compare(names: tuple[str, ...], graph: Graph, module: nn.Module, given: Tensor, case: str) -> None:
        expected = [output.numpy() for output in module(given)]
        for name, ours, theirs in zip(names, graph(given.numpy()), expected, strict=True):
            if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
                raise ExportFailed(
                    f"{name} of the graph is {ours.dtype} {ours.shape}, of PyTorch"
                    f" {theirs.dtype} {theirs.shape}; nothing was published"
                )
            difference = float(np.abs(ours.astype(np.float64) - theirs).max())
            allowed = tolerance[name]
            if name in ("mean", "log_variance"):
                allowed *= max(1.0, float(np.abs(theirs).max()))
            if not difference <= allowed:
                raise ExportFailed(
                    f"{name} differs by {difference:g} between ONNX Runtime and PyTorch on {case},"
                    f" more than {allowed:g}; nothing was published"
                )
            worst[name] = max(worst[name], difference)

    encoded = ("mean", "log_variance")[: len(encoder(torch.from_numpy(images[:1])))]
    for case, batch in _image_batches(images):
        compare(encoded, encode, encoder, batch, case)
        mean_BZ = encoder(batch)[0]
        compare(("image", "pixel_mean"), decode, decoder, mean_BZ, f"posterior means of {case}")
        prior_BZ = torch.randn(mean_BZ.shape, generator=torch.Generator().manual_seed(LATENT_SEED))
        compare(("image", "pixel_mean"), decode, decoder, prior_BZ, f"{len(batch)} draws from the prior")
    return Parity(
        batches=BATCHES,
        mean=worst["mean"],
        log_variance=worst["log_variance"] if "log_variance" in encoded else None,
        image_steps=int(worst["image"]),
        pixel_mean=worst["pixel_mean"],
    )


def _image_batches(images: NDArray[np.uint8]) -> Iterator[tuple[str, Tensor]]:
    for count in BATCHES:
        rows = np.resize(np.arange(len(images)), count)
        yield f"{count} images of the data", torch.from_numpy(np.ascontiguousarray(images[rows]))
        for value in (0, 255):
            full = torch.full((count, *images.shape[1:]), value, dtype=torch.uint8)
            yield f"{count} images of {value}", full
