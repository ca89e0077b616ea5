"""The inputs of a run: settings, images, device, processes, and the console for its progress."""

from dataclasses import dataclass
from typing import Self

import torch
from rich.console import Console

from convvae_trainer.compute.device import pick_device
from convvae_trainer.compute.distributed import DistContext
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig, BadData
from convvae_trainer.runs.likelihood_choice import chosen_likelihood
from convvae_trainer.runs.progress import batch_size
from convvae_trainer.settings.config import Config

__all__ = ["RunContext"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """The inputs of a run. Make one with `create`. `device` is this process's own.

    `likelihood_reason` says why the likelihood was chosen; it is "" if it was given.
    """

    config: Config
    dataset: Dataset
    device: torch.device
    dist: DistContext
    console: Console
    command: str
    likelihood_reason: str = ""

    @classmethod
    def create(
        cls, config: Config, dataset: Dataset, *, dist: DistContext, console: Console | None, command: str
    ) -> Self:
        """Return the context of a run in this process. Only the first process writes to the console.

        Raises:
            BadConfig: The processes cannot share a batch equally, or the device does not exist.
            BadData: The processes have read different images, or there are no validation images and the run
                needs some.
        """
        if console is None or not dist.is_first:
            console = Console(quiet=True)
        config, likelihood_reason = chosen_likelihood(config, dataset.train)
        if config.early_stop_epochs is not None and dataset.validation is None:
            raise BadData(
                f"{dataset.name} has {len(dataset.train)} training images, too few to hold one out for early"
                " stopping: omit --early-stop-epochs"
            )
        _check_shares(config, dataset, dist)
        return cls(
            config=config,
            dataset=dataset,
            device=dist.device(pick_device(config.device)),
            dist=dist,
            console=console,
            command=command,
            likelihood_reason=likelihood_reason,
        )


def _check_shares(config: Config, dataset: Dataset, dist: DistContext) -> None:
    num_images = len(dataset.train)
    if (size := batch_size(config, num_images)) % dist.size:
        raise BadConfig(
            f"a batch of {size} images cannot be shared equally by {dist.size} processes: make batch_size"
            f" (here limited by {num_images} training images) a multiple of {dist.size}"
        )
    if dist.size > 1 and len(set(dist.gather(dataset.fingerprint()))) > 1:
        raise BadData(
            f"the processes have read different images of {dataset.name}: every machine needs the same data"
        )
