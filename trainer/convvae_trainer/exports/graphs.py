"""The two ONNX graphs of a bundle, exported from PyTorch; pixels are uint8, and scaled inside the graphs.

B = batch, C = channels, H and W = height and width, Z = latent dimension.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from convvae_service.bundle import ImageShape, Role, expected_tensors
from convvae_trainer.errors import MissingExtra
from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.likelihoods import PixelLikelihood

__all__ = ["OPSET", "DecoderGraph", "EncoderGraph", "example_input", "strip", "to_onnx"]

# 21 has a native GroupNormalization; ONNX Runtime has had it since 1.18.
OPSET = 21
PRODUCER = "convvae"


class EncoderGraph(nn.Module):
    """The encoder's graph: uint8 images to (mean, log-variance), or to the code of an autoencoder."""

    def __init__(self, model: ConvVAE) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, image_BHWC: Tensor) -> tuple[Tensor, ...]:
        """Return (mean, log-variance) or (mean,), float32 of shape (B, Z)."""
        mean_BZ, log_variance_BZ = self.encoder(image_BHWC.permute(0, 3, 1, 2).to(torch.float32) / 255)
        return (mean_BZ,) if self.encoder.is_point else (mean_BZ, log_variance_BZ)


class DecoderGraph(nn.Module):
    """The decoder's graph: latents to (uint8 images, pixel means in 0..1)."""

    def __init__(self, model: ConvVAE, likelihood: PixelLikelihood) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.likelihood = likelihood

    def forward(self, latent_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Return uint8 images and float32 pixel means, both of shape (B, H, W, C)."""
        mean_BHWC = self.likelihood.pixel_mean(self.decoder(latent_BZ)).permute(0, 2, 3, 1)
        return torch.round(mean_BHWC * 255).to(torch.uint8), mean_BHWC


def example_input(role: Role, *, image: ImageShape, latent_dim: int, batch: int = 2) -> Tensor:
    """Return an input of zeros for the graph of this role."""
    if role == "encoder":
        return torch.zeros((batch, *image.as_tuple), dtype=torch.uint8)
    return torch.zeros((batch, latent_dim))


def to_onnx(
    module: nn.Module, *, role: Role, image: ImageShape, latent_dim: int, has_log_variance: bool
) -> bytes:
    """Return the checked ONNX bytes of a module, with a dynamic batch and no trace of this machine.

    Args:
        module: An `EncoderGraph` or `DecoderGraph`.
        role: Its role.
        image: The shape of images.
        latent_dim: The number of values in a latent vector.
        has_log_variance: Whether the encoder returns a log-variance beside the mean.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - the exporter needs it
    except ImportError as error:
        raise MissingExtra(error.name or "onnx") from None
    inputs, outputs = expected_tensors(
        role, image=image, latent_dim=latent_dim, has_log_variance=has_log_variance
    )
    example = example_input(role, image=image, latent_dim=latent_dim)
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[tensor.name for tensor in inputs],
            output_names=[tensor.name for tensor in outputs],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def strip(model: "onnx.ModelProto") -> None:  # type: ignore[name-defined]  # noqa: F821 - imported where used
    """Remove stack traces, module paths, comments and the producer, which describe the exporting machine."""
    for holder in (model, model.graph):
        del holder.metadata_props[:]
        holder.doc_string = ""
    graph = model.graph
    for entries in (graph.node, graph.initializer, graph.value_info, graph.input, graph.output):
        for entry in entries:
            del entry.metadata_props[:]
            entry.doc_string = ""
    model.producer_name, model.producer_version = PRODUCER, ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's progress messages, and its warnings about parts of torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # torch.export calls parts of torch that are deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
