"""Schedules of a run: learning rate, weight of the rate, order of the images, early log lines."""

import math

import numpy as np
import torch

from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.settings.config import Config

__all__ = ["FINAL_RATE", "effective_beta", "epoch_order", "is_early_log_step", "learning_rate"]

# The learning rate at the end, relative to its peak.
FINAL_RATE = 0.02
# The longest warm-up, relative to the run.
WARMUP_FRACTION = 0.1
LAST_EARLY_STEP = 4096


def learning_rate(config: Config, step: int, fraction: float) -> float:
    """Return the learning rate of a step.

    It rises linearly for `warmup_steps` steps or a tenth of the run, whichever is shorter, and falls along a
    cosine to 2 % of its peak. Each phase of the objective has a schedule of its own, as if it were a run.

    Args:
        config: The run's settings.
        step: Number of steps before this one.
        fraction: How much of the run is done, 0 to 1.
    """
    phases = objective_class(config.objective).phases(config)
    phase = next((phase for phase in phases if fraction < phase.end), phases[-1])
    done = min(1.0, (fraction - phase.start) / (phase.end - phase.start))
    # The step at which the phase began is not kept: steps take about the same share of the run.
    steps = step if not phase.start else step * (fraction - phase.start) / fraction
    warmup = max((steps + 1) / max(1, config.warmup_steps), done / WARMUP_FRACTION)
    cosine = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * phase.rate * min(1.0, warmup) * cosine


def effective_beta(config: Config, epochs: float) -> float:
    """Return the weight of the rate after `epochs` epochs, which may be a fraction."""
    if not config.kl_warmup_epochs:
        return config.beta
    return config.beta * min(1.0, epochs / config.kl_warmup_epochs)


def epoch_order(config: Config, epoch: int, num_images: int) -> torch.Tensor:
    """Return the order of the images in an epoch, a permutation that depends on seed and epoch only."""
    seed = int(np.random.SeedSequence((config.seed, epoch)).generate_state(1, np.uint64)[0] >> 1)
    return torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))


def is_early_log_step(step: int) -> bool:
    """Return whether a step is logged within its epoch: the powers of two, 1 to 4096."""
    return step <= LAST_EARLY_STEP and step.bit_count() == 1
