"""The training loop's parts beside networks, for tests and benchmarks that call it without a whole run."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from convvae_trainer.compute.distributed import SINGLE_PROCESS
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.runs.context import RunContext
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.record import DataRecord, RunRecord
from convvae_trainer.settings.config import Config

__all__ = ["training_parts"]


def training_parts(
    config: Config, images: NDArray[np.uint8], folder: Path, *, console: Console, precision: str = "fp32"
) -> tuple[RunContext, RunFolder]:
    """Return the context of a run that trains on uint8 images, and an existing folder as its run folder."""
    dataset = Dataset(name=config.dataset, split="", train=images, test=images[:1])
    context = RunContext.create(config, dataset, dist=SINGLE_PROCESS, console=console, command="")
    record = RunRecord(
        command="",
        precision=precision,
        threads=torch.get_num_threads(),
        reason="",
        data=DataRecord.of(dataset),
        segments=(),
    )
    return context, RunFolder(folder, config=config, record=record)
