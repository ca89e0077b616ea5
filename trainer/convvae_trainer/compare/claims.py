"""The lecture's claims about autoencoders and VAEs, each with the figures that support or contradict it."""

import itertools
from collections.abc import Callable, Sequence

from convvae_trainer.compare.claim import (
    Case,
    Claim,
    difference_case,
    limit_case,
    three_digits,
    with_seeds,
)
from convvae_trainer.compare.floors import LOWEST_SSIM, shortfall
from convvae_trainer.compare.latent_scatter import LatentScatter
from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.compare.pair_claims import at_own_size, realism_claim, sharper_claim
from convvae_trainer.compare.recipe import unlike_the_lecture
from convvae_trainer.compare.spread import Spread
from convvae_trainer.compare.system import System

__all__ = ["lecture_claims"]

# Reconstructions are called blurry if their sharpness is below this share of the inputs' sharpness.
BLURRY = 0.9
# A subset of the latent dimensions is called small if it is less than half of them.
SMALL_SUBSET = 0.5
# Convergence is called stable if no epoch loses more than this share of the whole gain: near the end of
# training the ELBO fluctuates a little.
SETBACK = 0.05


def lecture_claims(systems: Sequence[System], scatters: Sequence[LatentScatter]) -> list[Claim]:
    """Return the lecture's claims, each with the figures of the systems that decide on it.

    Args:
        systems: The systems of the comparison.
        scatters: The 2-D models, of one or more seeds; empty if they were left out.
    """
    return [
        Claim(
            text="VAEs map the input into a distribution, autoencoders into a fixed vector.",
            criterion="the mean standard deviation of the posterior is above 0, and an AE has no posterior",
            cases=tuple(map(_posterior_case, systems)),
            missing="there is no model",
        ),
        _terms_claim(scatters),
        Claim(
            text="VAEs have a reputation for producing blurry reconstructions of images.",
            criterion=f"the sharpness of the reconstructions is below {BLURRY:.0%} of the inputs' sharpness"
            f" at the inputs' own size, and they are still the images: {LOWEST_SSIM}",
            cases=_vae_cases(systems, _blur_case),
            missing="there is no VAE",
        ),
        Claim(
            text="VAEs tend to only utilise a small subset of the dimensions of z.",
            criterion=f"there are active units, but in fewer than {SMALL_SUBSET:.0%} of the dimensions",
            cases=_vae_cases(systems, _active_units_case),
            missing="there is no VAE",
        ),
        Claim(
            text="VAEs have nice learning dynamics: they are easy to optimise, with stable convergence.",
            criterion=f"in each seed, no epoch loses {SETBACK:.0%} of the gain of the training ELBO, and no"
            " step is skipped",
            cases=_vae_cases(systems, _convergence_case),
            missing="there is no VAE with a loss curve of three epochs",
        ),
        *(sharper_claim(objective, systems) for objective in ("vae-disl", "vae-gan")),
        *(realism_claim(objective, systems) for objective in ("vae-disl", "vae-gan")),
    ]


def _vae_cases(systems: Sequence[System], case_of: Callable[[System], Case | None]) -> tuple[Case, ...]:
    """Return the case of each VAE; one that is not the lecture's VAE has no vote."""
    cases = []
    for system in systems:
        if system.objective != "vae":
            continue
        if reason := unlike_the_lecture(system.recipes[0]):
            words = f"{system.name} is not the lecture's VAE: {reason}"
            cases.append(Case(holds=None, words=words, is_comparable=False))
        elif (case := case_of(system)) is not None:
            cases.append(case)
    return tuple(cases)


def _posterior_case(system: System) -> Case:
    deviation = system.spread(lambda model: model.posterior.deviation)
    is_ae = system.objective == "ae"
    if deviation is None:
        return Case(holds=is_ae, words=f"{system.name}: a point, no deviation")
    words = f"{system.name}: mean posterior deviation {with_seeds(deviation, '.3f')}"
    return Case(holds=not is_ae and min(deviation.values) > 0, words=words)


def _terms_claim(scatters: Sequence[LatentScatter]) -> Claim:
    cases: tuple[Case, ...] = ()
    if scatters:
        spread = {terms: _over_seeds(scatters, terms, "spread") for terms in ("distortion", "rate", "both")}
        rate = {terms: _over_seeds(scatters, terms, "rate") for terms in ("rate", "both")}
        cases = (
            difference_case(
                f"spread of the posterior means {with_seeds(spread['distortion'], '.2f')} with the"
                f" reconstruction term alone, {with_seeds(spread['both'], '.2f')} with both",
                spread["distortion"],
                spread["both"],
                wanted=1,
            ),
            difference_case(
                f"spread of the posterior means {with_seeds(spread['rate'], '.2g')} with the KL term alone,"
                f" {with_seeds(spread['both'], '.2f')} with both",
                spread["rate"],
                spread["both"],
                wanted=-1,
            ),
            difference_case(
                f"rate {with_seeds(rate['rate'], '.2g')} nats with the KL term alone,"
                f" {with_seeds(rate['both'], '.2f')} nats with both",
                rate["rate"],
                rate["both"],
                wanted=-1,
            ),
        )
    return Claim(
        text="The reconstruction term forces each image to be unique and spread out; the KL term pushes all"
        " images towards the same prior.",
        criterion="the means spread most under the reconstruction term alone, least under the KL term alone",
        cases=cases,
        missing="the scatter was left out",
    )


def _over_seeds(scatters: Sequence[LatentScatter], terms: str, figure: str) -> Spread:
    return Spread(tuple(float(getattr(each, figure)) for each in scatters if each.terms == terms))


def _blur_case(system: System) -> Case:
    if reason := shortfall(system):
        return Case(holds=None, words=reason, is_comparable=False)
    share = system.spread(_share_of_sharpness)
    if share is None:
        return Case(holds=None, words=f"{system.name}: the inputs have no edges", is_comparable=False)
    likelihood = system.recipes[0].likelihood
    words = f"{system.name}, {likelihood}: sharpness is {with_seeds(share, '.0%')} of the inputs'"
    words += at_own_size(system)
    return limit_case(words, share, BLURRY, wanted=-1)


def _share_of_sharpness(model: ModelReport) -> float | None:
    quality = model.sized.own_size
    return quality.sharpness / quality.input_sharpness if quality.input_sharpness else None


def _active_units_case(system: System) -> Case | None:
    active = system.spread(lambda model: model.active_units)
    if active is None:
        return None
    total = system.first.latent_dim
    words = f"{system.name}: {with_seeds(active, '.3g')} of {total} active"
    if not any(active.values):
        # The posterior has collapsed onto the prior: that is not a subset in use.
        return Case(holds=False, words=f"{words}: it does not use z", is_one_seed=active.count == 1)
    return limit_case(words, active, SMALL_SUBSET * total, wanted=-1)


def _convergence_case(system: System) -> Case | None:
    found = [each for member in system.members if (each := _convergence(member)) is not None]
    if len(found) < len(system.members):
        return None
    stable = [is_stable for is_stable, _ in found]
    words = f"{system.name}: {found[0][1]}"
    if len(stable) > 1:
        words += f"; {sum(stable)} of {len(stable)} seeds are stable"
    holds = stable[0] if len(set(stable)) == 1 else None
    return Case(holds=holds, words=words, is_one_seed=len(stable) == 1)


def _convergence(model: ModelReport) -> tuple[bool, str] | None:
    """Return whether the training was stable, and its numbers; None with fewer than three epochs."""
    epochs = model.bundle.loss_curves()
    elbos = [epoch.get("elbo") for epoch in epochs]
    numbers = [float(value) for value in elbos if isinstance(value, int | float)]
    if len(numbers) < 3:
        return None
    gain = max(numbers) - numbers[0]
    setback = max(0.0, *(before - after for before, after in itertools.pairwise(numbers)))
    skipped = sum(epoch.get("skipped_steps") or 0 for epoch in epochs)
    words = (
        f"the ELBO gained {three_digits(gain)} nats in {len(numbers)} epochs, the largest"
        f" setback was {three_digits(setback)}; {skipped} steps were skipped"
    )
    return gain > 0 and setback <= SETBACK * gain and not skipped, words
