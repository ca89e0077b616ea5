"""Advice on a trained run: a line for each sign that it has not learned what it could.

The signs are a collapsed posterior, a constant of the likelihood at its bound, and a loss that still falls. A
run of few steps has hardly begun: it gets one line that says so, in place of those on posterior and loss.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from convvae_trainer.evaluation.bound import BoundMetrics
from convvae_trainer.evaluation.metrics import Evaluation
from convvae_trainer.networks.likelihoods import LOG_SIGMA_RANGE
from convvae_trainer.step.train_state import TrainState

__all__ = ["advised", "constant_advice", "loss_advice", "posterior_advice", "short_advice"]

# A run of fewer steps has hardly begun. Digits had no active unit after 48 steps, and all 32 after 60.
FEW_STEPS = 100
# Fewer active units than this share of the latent dimensions are few.
FEW_ACTIVE = 0.1
# A learned constant is at its bound if it is nearer to it than this ratio.
NEAR_BOUND = 1.02
# A loss still falls steeply if the second half of the epochs brought more than this share of the whole gain.
# Digits had 0.30 after 10 epochs, and 0.10 after 30, where longer training changes reconstructions little.
# The learning rate falls towards the end of a run, so a shorter part says less.
STEEP = 0.2


def advised(
    evaluation: Evaluation,
    train_state: TrainState,
    metrics: Sequence[Mapping[str, Any]],
    *,
    began_trained: bool,
) -> Evaluation:
    """Return the evaluation of a run's own test images with advice on the run.

    Args:
        evaluation: The evaluation.
        train_state: Networks and likelihood of the run.
        metrics: The lines of the run's metrics.
        began_trained: Whether the first weights were those of another run, which a few steps may refine.
    """
    epochs = [line for line in metrics if line.get("kind") == "epoch"]
    # A GAN's networks do not minimise the bound.
    losses = () if train_state.objective.fits_sigma else loss_advice(epochs, beta=train_state.config.beta)
    short = () if began_trained else tuple(short_advice(epochs))
    found = (
        *(short or posterior_advice(evaluation.bound)),
        *constant_advice(train_state),
        *(() if short else losses),
    )
    return replace(evaluation, advice=found)


def short_advice(epochs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line if the run had few steps, whatever their number of epochs.

    Args:
        epochs: The metrics of each epoch, with the `step` at its end.
    """
    steps = epochs[-1].get("step") if epochs else None
    if steps is not None and steps < FEW_STEPS:
        yield (
            f"the training had only {steps} steps, too few to learn much: train longer, by more epochs or"
            " minutes, or with a smaller batch_size"
        )


def posterior_advice(bound: BoundMetrics) -> Iterator[str]:
    """Yield a line if no latent dimension is active, or few are. Codes of an autoencoder have no unit."""
    active, latent_dim = bound.active_units, bound.latent_dim
    if bound.rate is None or active >= FEW_ACTIVE * latent_dim:
        return
    if active == 0:
        yield (
            "the posterior has collapsed: no latent dimension carries information; lower beta, or give"
            " kl_warmup_epochs or free_bits, or train longer"
        )
    else:
        yield (
            f"only {active} of {latent_dim} latent dimensions carry information: fewer latent_dim do as well,"
            " or lower beta, or give kl_warmup_epochs or free_bits"
        )


def constant_advice(train_state: TrainState) -> Iterator[str]:
    """Yield a line if the learned sigma or scale of the likelihood is at its bound."""
    constants, config = train_state.likelihood.constants(), train_state.config
    name, value = ("sigma", constants.sigma) if constants.scale is None else ("scale", constants.scale)
    if value is None or config.sigma is not None:
        return
    low, high = (math.exp(bound) for bound in LOG_SIGMA_RANGE)
    if value < low * NEAR_BOUND:
        yield (
            f"{name} is at its lower bound, {low:.5f}: reconstructions are exact to a tenth of a grey level,"
            " as those of images that are all alike, and the ELBO says little"
        )
    elif value > high / NEAR_BOUND:
        yield (
            f"{name} is at its upper bound, {high:g}: reconstructions are no better than a constant; lower"
            " learning_rate"
        )


def loss_advice(epochs: Sequence[Mapping[str, Any]], *, beta: float = 1.0) -> Iterator[str]:
    """Yield a line if the loss still falls steeply, also that of validation images if there are any.

    Args:
        epochs: The metrics of each epoch: `distortion`, and `rate` unless it is an autoencoder.
        beta: The weight of the rate in the loss.
    """
    shares = []
    for prefix in ("", "validation_"):
        losses = [_loss(line, prefix, beta=beta) for line in epochs]
        known = [loss for loss in losses if loss is not None]
        if len(known) >= 2 and len(known) == len(losses):
            shares.append(_late_share(known))
    if shares and min(shares) > STEEP:
        yield (
            f"the loss still falls: the second half of the training brought {min(shares):.0%} of the gain"
            " since the first epoch; train longer"
        )


def _loss(line: Mapping[str, Any], prefix: str, *, beta: float) -> float | None:
    distortion, rate = line.get(f"{prefix}distortion"), line.get(f"{prefix}rate")
    return None if distortion is None else float(distortion) + beta * float(rate or 0.0)


def _late_share(losses: Sequence[float]) -> float:
    """Return the part of the gain since the first epoch that came in the second half of the epochs."""
    gain = losses[0] - losses[-1]
    late = losses[(len(losses) - 1) // 2] - losses[-1]
    return late / gain if gain > 0 else 0.0
