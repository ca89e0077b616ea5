"""The figures that `evaluate` adds when it is asked to: they take longer, and some of them need labels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from convvae_trainer.console import Countdown
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.selection import drawn
from convvae_trainer.errors import BadConfig, BadData
from convvae_trainer.evaluation.embedding import Embedding, check_installed, chosen, compare_embeddings
from convvae_trainer.evaluation.frechet import (
    NUM_FEATURES,
    check_accuracy,
    check_labels,
    default_floor,
    frechet_distance,
    train_classifier,
)
from convvae_trainer.evaluation.importance import LogLikelihood, check_samples, log_likelihoods
from convvae_trainer.evaluation.inference import posterior_means, reconstructions, samples
from convvae_trainer.evaluation.metrics import Evaluation, Frechet, binarized
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState

__all__ = ["DEFAULT_OPTIONS", "EvalOptions", "add_log_likelihood", "add_of_labels"]

# Images of a set in a Fréchet distance.
MAX_DISTANCE_IMAGES = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalOptions:
    """What is asked for beyond the usual figures."""

    importance_samples: int | None = None
    limit_images: int | None = None
    embedding: bool = False
    frechet: bool = False
    accuracy_floor: float | None = None

    def check(self, config: Config) -> None:
        """Refuse what does not go together, before anything is loaded.

        Raises:
            BadConfig: A flag is out of range, or does not fit the run or another flag.
            MissingExtra: scikit-learn is missing.
        """
        if self.importance_samples is not None:
            check_samples(self.importance_samples, objective=config.objective)
        if self.limit_images is not None and self.importance_samples is None:
            raise BadConfig("--limit-images goes with --importance-samples, whose images it limits")
        if self.accuracy_floor is not None:
            if not self.frechet:
                raise BadConfig("--accuracy-floor goes with --frechet, whose classifier it is for")
            if not 0 <= self.accuracy_floor <= 1:
                raise BadConfig(f"--accuracy-floor is {self.accuracy_floor:g}: it must be 0 to 1")
        if self.embedding:
            check_installed()

    def check_images(self, count: int) -> None:
        """Raise `BadConfig` if there are not so many images as `limit_images` says."""
        if self.limit_images is not None and not 1 <= self.limit_images <= count:
            raise BadConfig(f"--limit-images is {self.limit_images}: there are {count} test images")

    def check_dataset(self, dataset: Dataset | None) -> None:
        """Refuse data without the labels or the number of images that are needed.

        Args:
            dataset: The run's own data; None: it is evaluated on other data.

        Raises:
            BadConfig: Other data have no training images of the run.
            BadData: Labels or images are missing.
        """
        if not (self.embedding or self.frechet):
            return
        if dataset is None:
            raise BadConfig(
                "--embedding and --frechet need the run's training images and labels: leave --dataset out,"
                " or name the place that they were moved to"
            )
        if dataset.train_labels is None or dataset.test_labels is None:
            raise BadData(
                f"{dataset.name} has no labels: --embedding and --frechet need them, from folders of the"
                " first level, `labels` of an .npz, or a labelled torchvision set"
            )
        check_labels(dataset.train_labels)
        if self.embedding and len(np.unique(dataset.train_labels[chosen(dataset.train)])) < 2:
            raise BadData("--embedding: the training images that it takes are all of one class")
        if self.frechet and _distance_images(dataset) <= NUM_FEATURES:
            raise BadData(
                f"--frechet: there are {len(dataset.train)} training and {len(dataset.test)} test images, and"
                f" more than {NUM_FEATURES} are needed: of fewer the distance is mostly bias"
            )


DEFAULT_OPTIONS = EvalOptions()


def add_of_labels(
    evaluation: Evaluation,
    options: EvalOptions,
    train_state: TrainState,
    dataset: Dataset,
    *,
    console: Console,
) -> Evaluation:
    """Return the figures with those that need labels, as far as they are asked for.

    Raises:
        BadData: The classifier of the Fréchet distance is not good enough.
    """
    if options.frechet:
        # First, as its classifier may be refused.
        with _countdown(console, "training the classifier") as progress:
            distances = _frechet(
                train_state,
                dataset,
                binarize=evaluation.binarize,
                seed=evaluation.seed,
                floor=options.accuracy_floor,
                progress=progress,
            )
        evaluation = replace(evaluation, frechet=distances)
    if options.embedding:
        console.print("comparing vectors with pixels and principal components …", highlight=False)
        found = _embedding(train_state, dataset, binarize=evaluation.binarize)
        evaluation = replace(evaluation, embedding=found)
    return evaluation


def add_log_likelihood(
    evaluation: Evaluation,
    options: EvalOptions,
    train_state: TrainState,
    images_NHWC: NDArray[np.uint8],
    *,
    console: Console,
) -> Evaluation:
    """Return the figures with the importance-weighted log-likelihood, if it is asked for."""
    count = options.importance_samples
    if count is None:
        return evaluation
    images_NHWC = _as_given(images_NHWC[: options.limit_images], evaluation.binarize)
    text = f"log-likelihood of {len(images_NHWC)} images, {count} samples each"
    with train_state.ema.swapped_in(), _countdown(console, text) as progress:
        nats_N = log_likelihoods(
            train_state.model,
            train_state.likelihood,
            images_NHWC,
            samples=count,
            device=train_state.device,
            seed=evaluation.seed,
            progress=progress,
        )
    found = LogLikelihood.of(nats_N, samples=count, seed=evaluation.seed)
    return replace(evaluation, log_likelihood=found)


@contextmanager
def _countdown(console: Console, text: str) -> Iterator[Callable[[float], None]]:
    with Countdown(console, text) as countdown:
        yield countdown.show


def _as_given(images_NHWC: NDArray[np.uint8], binarize: str) -> NDArray[np.uint8]:
    """Return images as the encoder is given them."""
    return binarized(images_NHWC) if binarize == "dynamic" else images_NHWC


def _embedding(train_state: TrainState, dataset: Dataset, *, binarize: str) -> Embedding:
    assert dataset.train_labels is not None
    assert dataset.test_labels is not None
    train, test = chosen(dataset.train), chosen(dataset.test)
    train_images = _as_given(dataset.train[train], binarize)
    test_images = _as_given(dataset.test[test], binarize)
    return compare_embeddings(
        posterior_means(train_state, train_images),
        posterior_means(train_state, test_images),
        train_images=train_images,
        train_labels=dataset.train_labels[train],
        test_images=test_images,
        test_labels=dataset.test_labels[test],
    )


def _distance_images(dataset: Dataset) -> int:
    return min(len(dataset.train), len(dataset.test), MAX_DISTANCE_IMAGES)


def _frechet(
    train_state: TrainState,
    dataset: Dataset,
    *,
    binarize: str,
    seed: int,
    floor: float | None,
    progress: Callable[[float], None],
) -> Frechet:
    """Return distances from the test images as they are, also where the run draws them to 0 and 1."""
    assert dataset.train_labels is not None
    assert dataset.test_labels is not None
    count, config = _distance_images(dataset), train_state.config
    # As torchvision has them sets may be sorted by class.
    test = dataset.test[drawn(len(dataset.test), count)]
    train = dataset.train[drawn(len(dataset.train), count)]
    classifier = train_classifier(
        dataset.train, dataset.train_labels, device=train_state.device, progress=progress
    )
    accuracy = classifier.accuracy(dataset.test, dataset.test_labels)
    floor = default_floor(dataset.test_labels) if floor is None else floor
    check_accuracy(accuracy, dataset.test_labels, floor=floor)
    features = classifier.features(test)

    def distance(images_NHWC: NDArray[np.uint8]) -> float:
        return frechet_distance(features, classifier.features(images_NHWC))

    made = reconstructions(train_state, _as_given(test, binarize))
    sampled = None if config.objective == "ae" else samples(train_state, count, seed=seed)
    return Frechet(
        reconstructions=distance(made),
        samples=None if sampled is None else distance(sampled),
        training_images=distance(train),
        images=count,
        features=NUM_FEATURES,
        classifier_accuracy=accuracy,
        accuracy_floor=floor,
    )
