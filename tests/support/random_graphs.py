"""Graphs of networks with random weights, as they are exported."""

from typing import Any

import torch

from convvae_service.bundle import ImageShape, Role
from convvae_trainer.exports.graphs import DecoderGraph, EncoderGraph, to_onnx
from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.likelihoods import make_likelihood
from convvae_trainer.settings.config import Config

__all__ = ["random_graphs"]


def random_graphs(
    shape: ImageShape, *, likelihood: str = "bernoulli", is_point: bool = False, **settings: Any
) -> dict[Role, bytes]:
    """Return the graphs of networks whose every weight and bias is random; `settings` are those of a run."""
    config = Config(dataset="digits", **{"width": 8, "latent_dim": 8, **settings})
    torch.manual_seed(0)
    model = ConvVAE(
        config, height=shape.height, width=shape.width, channels=shape.channels, is_point=is_point
    )
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 50
        torch.nn.init.normal_(parameter, std=1.4 * fan_in**-0.5)
    modules: dict[Role, torch.nn.Module] = {
        "encoder": EncoderGraph(model),
        "decoder": DecoderGraph(model, make_likelihood(likelihood)),
    }
    return {
        role: to_onnx(
            module,
            role=role,
            image=shape,
            latent_dim=config.latent_dim,
            has_log_variance=not is_point,
        )
        for role, module in modules.items()
    }
