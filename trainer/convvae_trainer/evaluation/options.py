"""The options of an evaluation: which optional metrics to compute, and what they need of the data."""

from dataclasses import dataclass

import numpy as np

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig, BadData
from convvae_trainer.evaluation.classifier import NUM_FEATURES, check_labels
from convvae_trainer.evaluation.embedding import check_installed, embedding_rows
from convvae_trainer.evaluation.frechet import num_frechet_images
from convvae_trainer.evaluation.importance import check_samples
from convvae_trainer.settings.config import Config

__all__ = ["EvalOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalOptions:
    """The optional metrics to compute; none by default. The command's help describes each option."""

    importance_samples: int | None = None
    limit_images: int | None = None
    embedding: bool = False
    frechet: bool = False
    accuracy_floor: float | None = None

    @property
    def needs_labels(self) -> bool:
        """Whether any of the metrics needs labels and training images."""
        return self.embedding or self.frechet

    def check(self, config: Config) -> None:
        """Check the options, before any data are loaded.

        Raises:
            BadConfig: An option is out of range, or does not fit the run or another option.
            MissingExtra: scikit-learn is missing.
        """
        if self.importance_samples is not None:
            check_samples(self.importance_samples, objective=config.objective)
        if self.limit_images is not None and self.importance_samples is None:
            raise BadConfig("--limit-images needs --importance-samples, whose images it limits")
        if self.accuracy_floor is not None:
            if not self.frechet:
                raise BadConfig("--accuracy-floor needs --frechet: it is a limit of its classifier")
            if not 0 <= self.accuracy_floor <= 1:
                raise BadConfig(f"--accuracy-floor is {self.accuracy_floor:g}: it must be 0 to 1")
        if self.embedding:
            check_installed()

    def check_images(self, count: int) -> None:
        """Raise `BadConfig` if `limit_images` is more than the `count` test images."""
        if self.limit_images is not None and not 1 <= self.limit_images <= count:
            raise BadConfig(f"--limit-images is {self.limit_images}: there are {count} test images")

    def check_dataset(self, dataset: Dataset | None) -> None:
        """Check that the data have the labels and the number of images that the metrics need.

        Args:
            dataset: The run's own data. None: the run is evaluated on other data.

        Raises:
            BadConfig: A metric needs the run's training images, and the data are other data.
            BadData: Labels are missing, or there are too few images.
        """
        if not self.needs_labels:
            return
        if dataset is None:
            raise BadConfig(
                "--embedding and --frechet need the run's training images and labels: leave --dataset out,"
                " or give the folder or file that the run's data were moved to"
            )
        if dataset.train_labels is None or dataset.test_labels is None:
            raise BadData(
                f"{dataset.name} has no labels, and --embedding and --frechet need them: give a folder with"
                " one folder per class, an .npz with `labels`, or a torchvision set with labels"
            )
        check_labels(dataset.train_labels)
        if self.embedding and len(np.unique(dataset.train_labels[embedding_rows(dataset.train)])) < 2:
            raise BadData("--embedding: all training images that it uses are of one class")
        if self.frechet and num_frechet_images(dataset) <= NUM_FEATURES:
            raise BadData(
                f"--frechet: there are {len(dataset.train)} training and {len(dataset.test)} test images, and"
                f" more than {NUM_FEATURES} are needed: with fewer the distance is mostly bias"
            )
