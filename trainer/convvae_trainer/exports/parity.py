"""Parity: the ONNX graphs compute in ONNX Runtime what the networks compute in PyTorch.

B = batch, Z = latent dimension. All computation is on the CPU.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convvae_service.bundle import Parity, Role
from convvae_trainer.errors import ExportFailed
from convvae_trainer.exports.onnx_runtime import open_session

__all__ = ["BATCHES", "TOLERANCES", "check_parity"]

BATCHES = (1, 2, 7, 33)
# The largest absolute difference allowed for each output. The tolerance of `mean` and `log_variance` grows in
# proportion to values above 1: float32 has a relative error, and the codes of an autoencoder have no bound.
TOLERANCES = {"mean": 1e-4, "log_variance": 1e-4, "image": 1.0, "pixel_mean": 1e-4}
RELATIVE = ("mean", "log_variance")
DECODER_OUTPUTS = ("image", "pixel_mean")
LATENT_SEED = 0


class _GraphCheck:
    """Compares one graph with its PyTorch module, and keeps the largest difference of each output."""

    def __init__(self, graph: bytes, module: nn.Module, *, role: Role, outputs: tuple[str, ...]) -> None:
        self._session = open_session(graph, name=role)
        self._input = self._session.get_inputs()[0].name
        self._module = module
        self.largest = dict.fromkeys(outputs, 0.0)

    def compare(self, rows: Tensor, case: str) -> None:
        """Run both on a batch. Raises `ExportFailed` if an output differs by more than its tolerance."""
        expected = [output.numpy() for output in self._module(rows)]
        found: list[NDArray[Any]] = self._session.run(None, {self._input: np.ascontiguousarray(rows.numpy())})
        for name, onnx_output, torch_output in zip(self.largest, found, expected, strict=True):
            difference = _difference(name, onnx_output, torch_output)
            allowed = TOLERANCES[name]
            if name in RELATIVE:
                allowed *= max(1.0, float(np.abs(torch_output).max()))
            # Written so that NaN fails too.
            if not difference <= allowed:
                raise ExportFailed(
                    f"{name} differs by {difference:g} between ONNX Runtime and PyTorch on {case},"
                    f" more than {allowed:g}; nothing was published"
                )
            self.largest[name] = max(self.largest[name], difference)


@torch.no_grad()
def check_parity(
    *, encoder: nn.Module, decoder: nn.Module, graphs: Mapping[Role, bytes], images: NDArray[np.uint8]
) -> Parity:
    """Compare both graphs with PyTorch at batches of 1, 2, 7 and 33 rows.

    The encoder is given images of the data, all-0 images and all-255 images. The decoder is given their
    posterior means, and draws from the prior.

    Args:
        encoder: The PyTorch module, on the CPU: uint8 images to (mean, log-variance), or (mean,) for `ae`.
        decoder: The PyTorch module, on the CPU: latents to (image, pixel mean).
        graphs: ONNX bytes by role.
        images: uint8 images of the data, shape (N, H, W, C); they are repeated if there are fewer than 33.

    Returns:
        The largest absolute difference of each output.

    Raises:
        ExportFailed: A difference is above its tolerance; the message names the output and the case.
        MissingExtra: ONNX Runtime is not installed.
    """
    encoder_outputs = ("mean", "log_variance")[: len(encoder(torch.from_numpy(images[:1])))]
    encoder_check = _GraphCheck(graphs["encoder"], encoder, role="encoder", outputs=encoder_outputs)
    decoder_check = _GraphCheck(graphs["decoder"], decoder, role="decoder", outputs=DECODER_OUTPUTS)
    for case, batch in _image_batches(images):
        encoder_check.compare(batch, case)
        mean_BZ = encoder(batch)[0]
        decoder_check.compare(mean_BZ, f"posterior means of {case}")
        prior_BZ = torch.randn(mean_BZ.shape, generator=torch.Generator().manual_seed(LATENT_SEED))
        decoder_check.compare(prior_BZ, f"{len(batch)} draws from the prior")
    return Parity(
        batches=BATCHES,
        mean=encoder_check.largest["mean"],
        log_variance=encoder_check.largest.get("log_variance"),
        image_steps=int(decoder_check.largest["image"]),
        pixel_mean=decoder_check.largest["pixel_mean"],
    )


def _difference(name: str, onnx_output: NDArray[Any], torch_output: NDArray[Any]) -> float:
    """Return the largest absolute difference, or raise `ExportFailed` if shapes or dtypes differ."""
    if onnx_output.shape != torch_output.shape or onnx_output.dtype != torch_output.dtype:
        raise ExportFailed(
            f"{name} is {onnx_output.dtype} {onnx_output.shape} in ONNX Runtime and"
            f" {torch_output.dtype} {torch_output.shape} in PyTorch; nothing was published"
        )
    return float(np.abs(onnx_output.astype(np.float64) - torch_output).max())


def _image_batches(images: NDArray[np.uint8]) -> Iterator[tuple[str, Tensor]]:
    """Yield (description, batch) for each batch size: images of the data, all 0 and all 255."""
    for count in BATCHES:
        rows = np.resize(np.arange(len(images)), count)
        yield f"{count} images of the data", torch.from_numpy(np.ascontiguousarray(images[rows]))
        for value in (0, 255):
            full = torch.full((count, *images.shape[1:]), value, dtype=torch.uint8)
            yield f"{count} images of {value}", full
