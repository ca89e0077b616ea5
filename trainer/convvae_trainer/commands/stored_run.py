"""A run that exists: its folder, the weights of its checkpoint, and how much of its training is done."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.sources import IN_MEMORY, SourceImages
from convvae_trainer.errors import BadRun
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.progress import TrainProgress, fraction_done
from convvae_trainer.runs.start import load_run
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.layers import FLAGS, Layer
from convvae_trainer.step.train_state import TrainState

__all__ = ["DataLocation", "StoredRun"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataLocation:
    """The place of a data set, for a command on a run that exists.

    Args:
        dataset: A name or a path. None: as the run recorded it.
        test_dataset: The same, of test images from another data set.
        validation_dataset: The same, of validation images from another data set.
        data_root: The folder of torchvision sets. None: as the run recorded it.
        download: Whether to download a torchvision set that is absent.
        max_pixels: Largest width x height of an image file. None: as the run recorded it.
        on_error: `fail` or `skip` for image files that cannot be used. None: as the run recorded it.
        given: The data, if they are in memory: a data set, or images that are not split.
    """

    dataset: str | None = None
    test_dataset: str | None = None
    validation_dataset: str | None = None
    data_root: str | None = None
    download: bool = False
    max_pixels: int | None = None
    on_error: str | None = None
    given: Dataset | SourceImages | None = None

    @property
    def name(self) -> str | None:
        """The name of the data set; None: as the run recorded it."""
        if isinstance(self.given, Dataset):
            return self.given.name
        return self.dataset if self.given is None else IN_MEMORY


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRun:
    """A run with the weights of its checkpoint.

    Args:
        folder: The run folder.
        train_state: The weights of the checkpoint.
        progress: The position of the checkpoint in the training.
        has_ended: Whether all of the training is done.
        share_done: The share of the training that is done, 0 to 1.
    """

    folder: RunFolder
    train_state: TrainState
    progress: TrainProgress
    has_ended: bool
    share_done: float

    @classmethod
    def load(cls, run_dir: Path, *, device: str | None = "cpu") -> "StoredRun":
        """Load a run from its folder.

        Args:
            run_dir: The run folder.
            device: The device for the weights. None: as the run's settings say.

        Raises:
            BadRun: There is no run, its checkpoint cannot be read, or it trains no encoder yet.
        """
        folder, train_state, progress = load_run(run_dir, device=device)
        images = folder.record.data.train_images
        stored = cls(
            folder=folder,
            train_state=train_state,
            progress=progress,
            has_ended=progress.is_finished,
            share_done=fraction_done(folder.config, progress, images),
        )
        stored._check_encoder()
        return stored

    @property
    def resume_command(self) -> str:
        """The command that continues the training."""
        return shlex.join(["convvae-train", "fit", "--resume", "--run-dir", str(self.folder.path)])

    @property
    def unfinished_text(self) -> str:
        """The sentence that says how far a run has come that has not ended."""
        return f"the run has not ended ({100 * self.share_done:.0f} % of its training is done)"

    def config_with(self, **flags: Any) -> Config:
        """Return the settings of the run with the flags of a command on top; None means not given.

        Raises:
            BadConfig: A flag is not allowed, or contradicts the settings of the run.
        """
        return config_from(self.folder.settings, Layer(flags, FLAGS))

    def _check_encoder(self) -> None:
        config = self.folder.config
        start = objective_class(config.objective).encoder_start(config)
        if not self.has_ended and self.share_done < start:
            raise BadRun(
                f"{100 * self.share_done:.0f} % of the run is done, but {config.objective} has no trained"
                f" encoder before {100 * start:.0f} %: {self.resume_command}"
            )
