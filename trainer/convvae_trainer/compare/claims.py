"""What the lecture says of these models, held against the figures of a report."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from convvae_trainer.compare.latent_scatter import LatentScatter
from convvae_trainer.compare.measure import ModelReport

__all__ = ["Claim", "judge_claims", "three_digits"]

# Reconstructions count as blurry where their sharpness is below this share of the inputs'.
BLURRY = 0.9
# A subset of the latents is small if it is less than half of them.
SMALL_SUBSET = 0.5
# A stable run's bound never falls by more than this share of what it gains; near its end it trembles.
SETBACK = 0.05
ADVERSARIAL = {"vae-disl": "VAE_Dis_l", "vae-gan": "VAE/GAN"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A sentence, how many of the cases here bear it out, and for each the numbers."""

    text: str
    criterion: str
    cases: tuple[tuple[bool, str], ...]
    missing: str

    @property
    def verdict(self) -> str:
        """In words; where there are no cases nothing can be said, and `missing` is what it would take."""
        if not self.cases:
            return "cannot be said"
        holding = sum(holds for holds, _ in self.cases)
        if holding == len(self.cases):
            return "holds here"
        if not holding:
            return "does not hold here"
        return f"holds in {holding} of {len(self.cases)} cases here"

    def to_json_object(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return {**asdict(self), "cases": [list(case) for case in self.cases], "verdict": self.verdict}


def judge_claims(systems: Sequence[ModelReport], planes: Sequence[LatentScatter]) -> list[Claim]:
    """Return the lecture's claims with the figures that hold for or against each."""
    plain = [system for system in systems if system.objective == "vae"]
    rated = [system for system in systems if system.rate is not None]
    return [
        Claim(
            text="VAEs map the input into a distribution, autoencoders into a fixed vector.",
            criterion="the posterior's mean standard deviation is above 0, and there is none of an ae",
            cases=tuple(_deviation(system) for system in systems),
            missing="there is no model",
        ),
        _planes_claim(planes),
        Claim(
            text="VAEs have a reputation for producing blurry reconstructions of images.",
            criterion=f"the sharpness of the reconstructions is below {BLURRY:.0%} of the inputs'",
            cases=tuple(_blur(system) for system in plain),
            missing="there is no vae",
        ),
        Claim(
            text="VAEs tend to only utilise a small subset of the dimensions of z.",
            criterion=f"there are active units, fewer than {SMALL_SUBSET:.0%} of the dimensions",
            cases=tuple(_usage(system) for system in rated),
            missing="there is no model with a rate",
        ),
        Claim(
            text="VAEs have nice learning dynamics: they are easy to optimise, with stable convergence.",
            criterion=f"no epoch loses {SETBACK:.0%} of what the training ELBO gains; no step is skipped",
            cases=tuple(case for system in plain if (case := _steadiness(system)) is not None),
            missing="there is no vae whose loss curve has three epochs",
        ),
        *(_sharper(objective, systems, plain) for objective in ADVERSARIAL),
        *(_trade(objective, systems, plain) for objective in ADVERSARIAL),
    ]


def three_digits(value: float) -> str:
    """Return a number of three digits at least, without an exponent where it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _deviation(system: ModelReport) -> tuple[bool, str]:
    if system.deviation is None:
        return system.objective == "ae", f"{system.label} ({system.objective}): a point, no deviation"
    words = f"{system.label} ({system.objective}): mean posterior deviation {system.deviation:.3f}"
    return system.objective != "ae" and system.deviation > 0, words


def _planes_claim(planes: Sequence[LatentScatter]) -> Claim:
    cases: tuple[tuple[bool, str], ...] = ()
    if planes:
        found = {plane.terms: plane for plane in planes}
        alone, rate, both = found["distortion"], found["rate"], found["both"]
        cases = (
            (
                alone.spread > both.spread,
                (
                    f"spread of the posterior means {alone.spread:.2f} with the reconstruction term alone,"
                    f" {both.spread:.2f} with both"
                ),
            ),
            (
                rate.spread < both.spread and rate.rate < both.rate,
                (
                    f"rate {rate.rate:.3g} nats and spread {rate.spread:.2g} with the KL term alone,"
                    f" {both.rate:.2f} nats and {both.spread:.2f} with both"
                ),
            ),
        )
    return Claim(
        text="The reconstruction term forces each image to be unique and spread out; the KL term pushes all"
        " images towards the same prior.",
        criterion="the means spread most under the reconstruction term alone, least under the KL term alone",
        cases=cases,
        missing="the scatter was left out",
    )


def _blur(system: ModelReport) -> tuple[bool, str]:
    quality = system.quality
    if not quality.input_sharpness:
        return False, f"{system.label}: the inputs have no edges"
    share = quality.sharpness / quality.input_sharpness
    return share < BLURRY, f"{system.label}: sharpness is {share:.0%} of the inputs'"


def _usage(system: ModelReport) -> tuple[bool, str]:
    active, total = system.active_units, system.latent_dim
    words = f"{system.label} ({system.objective}): {active} of {total} active"
    if not active:
        # None is no subset that is used: the posterior has collapsed onto the prior.
        return False, f"{words}: it makes no use of z at all"
    return active < SMALL_SUBSET * total, words


def _steadiness(system: ModelReport) -> tuple[bool, str] | None:
    lines = system.model.curves()
    elbos = [line.get("elbo") for line in lines]
    numbers = [float(value) for value in elbos if isinstance(value, int | float)]
    if len(numbers) < 3:
        return None
    gain = max(numbers) - numbers[0]
    setback = max(0.0, *(earlier - later for earlier, later in itertools.pairwise(numbers)))
    skipped = sum(line.get("skipped_steps") or 0 for line in lines)
    words = (
        f"{system.label}: the ELBO gained {three_digits(gain)} nats in {len(numbers)} epochs, the largest"
        f" setback was {three_digits(setback)}; {skipped} steps were skipped"
    )
    return gain > 0 and setback <= SETBACK * gain and not skipped, words


def _sharper(objective: str, systems: Sequence[ModelReport], plain: Sequence[ModelReport]) -> Claim:
    cases = []
    for system in systems:
        for vae in plain if system.objective == objective else ():
            ours, theirs = system.quality.sharpness_distance, vae.quality.sharpness_distance
            if ours is not None and theirs is not None:
                words = f"sharpness distance {ours:.3f} of {system.label}, {theirs:.3f} of {vae.label}"
                cases.append((ours < theirs, words))
    return Claim(
        text=f"{ADVERSARIAL[objective]} reconstructs more sharply than the VAE.",
        criterion="its sharpness is nearer to the inputs'",
        cases=tuple(cases),
        missing=f"it takes a vae and a {objective}",
    )


def _trade(objective: str, systems: Sequence[ModelReport], plain: Sequence[ModelReport]) -> Claim:
    cases = []
    for system in systems:
        for vae in plain if system.objective == objective else ():
            ours, theirs = system.frechet_reconstructions, vae.frechet_reconstructions
            if ours is not None and theirs is not None:
                error, other = system.quality.mse, vae.quality.mse
                words = (
                    f"{system.label}: Fréchet {three_digits(ours)}, MSE {error:.4f};"
                    f" {vae.label}: Fréchet {three_digits(theirs)}, MSE {other:.4f}"
                )
                cases.append((ours < theirs and error > other, words))
    return Claim(
        text=f"{ADVERSARIAL[objective]} looks more like the data than the VAE; its pixels are further off.",
        criterion="the Fréchet distance of its reconstructions is lower while their MSE is higher",
        cases=tuple(cases),
        missing=f"it takes a vae, a {objective} and labels",
    )
