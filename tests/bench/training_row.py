"""One row of training_throughput: a trainer and a network, measured whenever a line comes in.

Runs in the interpreter that training_throughput makes, which has pythae; prints one JSON object when it is
ready and one for each line on its standard input.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from pythae.data.datasets import BaseDataset  # type: ignore[import-not-found]
from pythae.models import VAE, VAEConfig  # type: ignore[import-not-found]
from pythae.models.base.base_utils import ModelOutput  # type: ignore[import-not-found]
from pythae.models.nn import BaseDecoder, BaseEncoder  # type: ignore[import-not-found]
from pythae.models.nn.benchmarks.mnist import (  # type: ignore[import-not-found]
    Decoder_Conv_AE_MNIST,
    Encoder_Conv_VAE_MNIST,
)
from pythae.trainers import BaseTrainer, BaseTrainerConfig  # type: ignore[import-not-found]
from pythae.trainers.training_callbacks import TrainingCallback  # type: ignore[import-not-found]
from rich.console import Console
from torch import Tensor, nn

from convvae_service.images.idx import open_idx
from convvae_trainer.compute.device import synchronise
from convvae_trainer.compute.precision import autocast_dtype, choose_precision
from convvae_trainer.compute.process import configure_process
from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.runs.progress import TrainProgress
from convvae_trainer.runs.training import train
from convvae_trainer.settings.config import Config
from convvae_trainer.step import train_state as train_state_module
from convvae_trainer.step.train_state import TrainState

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.training_parts import training_parts

IMAGES = "MNIST/raw/train-images-idx3-ubyte"
BATCH = 100
# Those of each project's own MNIST example.
LATENT_DIM = {"plain": 32, "pythae": 16}
# On a GPU the fourth step is recorded.
WARM_UP_BATCHES = 5
Images = NDArray[np.uint8]
# Trains on images and returns the seconds that this took.
Trainer = Callable[[Images], float]


class OurEncoder(BaseEncoder):  # type: ignore[misc]
    """Our encoder as pythae wants one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Any:
        mean_BZ, log_variance_BZ = self.network(x_BCHW)
        return ModelOutput(embedding=mean_BZ, log_covariance=log_variance_BZ)


class OurDecoder(BaseDecoder):  # type: ignore[misc]
    """Our decoder as pythae wants one: its cross-entropy takes probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latent_BZ: Tensor) -> Any:
        return ModelOutput(reconstruction=self.network(latent_BZ).sigmoid())


class PythaeEncoder(nn.Module):
    """pythae's encoder for MNIST as ours."""

    is_point = False

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.network = Encoder_Conv_VAE_MNIST(settings)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(x_BCHW)
        return found["embedding"].float(), found["log_covariance"].float()


class PythaeDecoder(nn.Module):
    """pythae's decoder for MNIST as ours: without the sigmoid, which our likelihood has."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.network = Decoder_Conv_AE_MNIST(settings)
        assert isinstance(self.network.layers[-1][-1], nn.Sigmoid)
        self.network.layers[-1][-1] = nn.Identity()

    def forward(self, latent_BZ: Tensor) -> Tensor:
        found: Tensor = self.network(latent_BZ)["reconstruction"]
        return found.float()


class PythaeNetworks(nn.Module):
    """pythae's networks for MNIST, made as our `TrainState` makes networks."""

    def __init__(self, config: Config, *, height: int, width: int, channels: int) -> None:
        super().__init__()
        settings = VAEConfig(input_dim=(channels, height, width), latent_dim=config.latent_dim)
        self.encoder, self.decoder = PythaeEncoder(settings), PythaeDecoder(settings)


class Nowhere(io.StringIO):
    """A terminal that drops what is shown."""

    def write(self, text: str) -> int:
        return len(text)


class Stopwatch(TrainingCallback):  # type: ignore[misc]
    """Tells the seconds of pythae's last epoch, from its first batch's loading to its last step."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def on_train_step_begin(self, *_: Any, **__: Any) -> None:
        synchronise(self.device)
        self.began_s = self.ended_s = time.perf_counter()

    def on_train_step_end(self, *_: Any, **__: Any) -> None:
        synchronise(self.device)
        self.ended_s = time.perf_counter()


def pythae_trainer(network: str, folder: Path, device: torch.device) -> tuple[Trainer, dict[str, Any]]:
    """Return pythae's trainer at its defaults, with cross-entropy."""
    config = Config(dataset="mnist", latent_dim=LATENT_DIM[network])
    settings = VAEConfig(input_dim=(1, 28, 28), latent_dim=config.latent_dim, reconstruction_loss="bce")
    if network == "plain":
        ours = ConvVAE(config, height=28, width=28, channels=1)
        encoder, decoder = OurEncoder(ours.encoder), OurDecoder(ours.decoder)
    else:
        encoder, decoder = Encoder_Conv_VAE_MNIST(settings), Decoder_Conv_AE_MNIST(settings)
    model = VAE(model_config=settings, encoder=encoder, decoder=decoder)

    def run(images_NHWC: Images) -> float:
        x_NCHW = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float() / 255
        stopwatch = Stopwatch(device)
        trainer_settings = BaseTrainerConfig(
            output_dir=str(folder),
            num_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-3,
            no_cuda=device.type == "cpu",
        )
        dataset = BaseDataset(x_NCHW, torch.zeros(len(x_NCHW)))
        BaseTrainer(model, dataset, training_config=trainer_settings, callbacks=[stopwatch]).train()
        return stopwatch.ended_s - stopwatch.began_s

    return run, {"precision": "fp32", "parameters": num_parameters(model)}


def our_trainer(
    network: str, folder: Path, images_NHWC: Images, device: torch.device, *, precision: str, compiled: bool
) -> tuple[Trainer, dict[str, Any]]:
    """Return our training loop at its defaults."""
    config = Config(
        dataset="mnist",
        likelihood="bernoulli",
        latent_dim=LATENT_DIM[network],
        batch_size=BATCH,
        epochs=1,
        device=str(device),
        compile=compiled,
    )
    chosen = choose_precision(precision, device)
    made = ConvVAE if network == "plain" else PythaeNetworks
    with mock.patch.object(train_state_module, "ConvVAE", made):
        autocast = autocast_dtype(chosen.name)
        train_state = TrainState(config, shape=(28, 28, 1), device=device, autocast=autocast)
    # A live bar, as pythae shows one.
    console = Console(file=Nowhere(), force_terminal=True)

    def run(images_NHWC: Images) -> float:
        context, run_folder = training_parts(
            config, images_NHWC, folder, console=console, precision=chosen.name
        )
        progress = TrainProgress()
        train(context, run_folder, train_state, progress)
        return progress.elapsed_s

    facts: dict[str, Any] = {"precision": chosen.name, "reason": chosen.reason}
    facts |= {"channels_last": train_state.is_channels_last, "cuda_graph": train_state.is_graphed}
    return run, {**facts, "parameters": num_parameters(train_state.model)}


def num_parameters(module: nn.Module) -> int:
    """Return how many weights there are."""
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    """Get ready, then train on the same images at each line of standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--trainer", choices=["pythae", "ours"], required=True)
    parser.add_argument("--network", choices=["plain", "pythae"], required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16", "auto"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    # Ours switches TF32 off; on a GPU pythae has what is torch's default, which rounds in convolutions.
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    images_NHWC = np.array(open_idx(options.data_root / IMAGES)[: options.images])[..., None]
    if options.trainer == "ours":
        configure_process(keep_freed_memory=device.type == "cpu")
    with tempfile.TemporaryDirectory() as folder:
        if options.trainer == "pythae":
            run, facts = pythae_trainer(options.network, Path(folder), device)
        else:
            run, facts = our_trainer(
                options.network,
                Path(folder),
                images_NHWC,
                device,
                precision=options.precision,
                compiled=options.compile,
            )
        warm_up_s = run(images_NHWC[: WARM_UP_BATCHES * BATCH])
        say({**facts, "threads": torch.get_num_threads(), "warm_up_s": round(warm_up_s, 2)})
        for _ in sys.stdin:
            say({"images_per_s": round(len(images_NHWC) / run(images_NHWC), 1)})


def say(facts: dict[str, Any]) -> None:
    """Print one line for training_throughput."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
