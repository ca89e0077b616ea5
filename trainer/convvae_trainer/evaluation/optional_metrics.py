"""The optional metrics of an evaluation: they take longer, and some of them need labels."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from convvae_trainer.console import Countdown
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.evaluation.binarization import encoder_input
from convvae_trainer.evaluation.embedding import measure_embedding
from convvae_trainer.evaluation.frechet import measure_frechet
from convvae_trainer.evaluation.importance import LogLikelihood, log_likelihoods
from convvae_trainer.evaluation.metrics import Evaluation, OptionalMetrics
from convvae_trainer.evaluation.options import EvalOptions
from convvae_trainer.step.train_state import TrainState

__all__ = ["add_optional_metrics"]


def add_optional_metrics(
    evaluation: Evaluation,
    options: EvalOptions,
    train_state: TrainState,
    images_NHWC: NDArray[np.uint8],
    dataset: Dataset | None,
    *,
    console: Console,
) -> Evaluation:
    """Return the evaluation with the metrics that the options request.

    Args:
        evaluation: The evaluation of the images.
        options: Options that were checked against the run and the data.
        train_state: Networks and likelihood; the averaged weights are used.
        images_NHWC: The test images, uint8.
        dataset: The run's data, for metrics that need labels and training images.
        console: Shows progress.

    Raises:
        BadData: The classifier of the Fréchet distance is not accurate enough.
    """
    metrics = OptionalMetrics()
    binarize, seed = evaluation.binarize, evaluation.seed
    if options.frechet:
        assert dataset is not None
        # Computed first, since its classifier may be refused.
        with Countdown(console, "training the classifier") as countdown:
            frechet = measure_frechet(
                train_state,
                dataset,
                binarize=binarize,
                seed=seed,
                floor=options.accuracy_floor,
                progress=countdown.show_share,
            )
        metrics = replace(metrics, frechet=frechet)
    if options.embedding:
        assert dataset is not None
        console.print("comparing vectors with pixels and principal components …", highlight=False)
        metrics = replace(metrics, embedding=measure_embedding(train_state, dataset, binarize=binarize))
    if options.importance_samples is not None:
        inputs_NHWC = encoder_input(images_NHWC[: options.limit_images], binarize=binarize)
        log_likelihood = _log_likelihood(
            train_state, inputs_NHWC, samples=options.importance_samples, seed=seed, console=console
        )
        metrics = replace(metrics, log_likelihood=log_likelihood)
    return replace(evaluation, optional=metrics)


def _log_likelihood(
    train_state: TrainState, images_NHWC: NDArray[np.uint8], *, samples: int, seed: int, console: Console
) -> LogLikelihood:
    title = f"log-likelihood of {len(images_NHWC)} images, {samples} samples each"
    with train_state.ema.swapped_in(), Countdown(console, title) as countdown:
        nats_N = log_likelihoods(
            train_state.model,
            train_state.likelihood,
            images_NHWC,
            samples=samples,
            device=train_state.device,
            seed=seed,
            progress=countdown.show_share,
        )
    return LogLikelihood.from_images(nats_N, samples=samples, seed=seed)
