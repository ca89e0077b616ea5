"""The inputs of a run: settings, images, device, processes, and the console for its progress."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from convvae_trainer.compute.device import pick_device
from convvae_trainer.compute.distributed import DistContext
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.splits import hold_out_validation
from convvae_trainer.errors import BadConfig, BadData
from convvae_trainer.runs.progress import batch_size
from convvae_trainer.settings.config import Config

__all__ = ["RunContext"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """The inputs of a run. Make one with `create`.

    The data set's training images, uint8 (N, H, W, C), are split in two: the run trains on `train_images`,
    and `validation_images` decide when it stops early, or are None. `device` is this process's own.
    """

    config: Config
    dataset: Dataset
    train_images: NDArray[np.uint8]
    validation_images: NDArray[np.uint8] | None
    device: torch.device
    dist: DistContext
    console: Console
    command: str

    @classmethod
    def create(
        cls, config: Config, dataset: Dataset, *, dist: DistContext, console: Console | None, command: str
    ) -> Self:
        """Return the context of a run in this process. Only the first process writes to the console.

        Raises:
            BadConfig: The processes cannot share a batch equally, or the device does not exist.
            BadData: The processes have read different images.
        """
        if console is None or not dist.is_first:
            console = Console(quiet=True)
        train_images, validation_images = dataset.train, None
        if config.early_stop_epochs is not None:
            train_images, validation_images = hold_out_validation(dataset.train)
        _check_shares(config, dataset, len(train_images), dist)
        return cls(
            config=config,
            dataset=dataset,
            train_images=train_images,
            validation_images=validation_images,
            device=dist.device(pick_device(config.device)),
            dist=dist,
            console=console,
            command=command,
        )


def _check_shares(config: Config, dataset: Dataset, num_images: int, dist: DistContext) -> None:
    if (size := batch_size(config, num_images)) % dist.size:
        raise BadConfig(
            f"a batch of {size} images cannot be shared equally by {dist.size} processes: make batch_size"
            f" (here limited by {num_images} training images) a multiple of {dist.size}"
        )
    if dist.size > 1 and len(set(dist.gather(dataset.fingerprint()))) > 1:
        raise BadData(
            f"the processes have read different images of {dataset.name}: every machine needs the same data"
        )
