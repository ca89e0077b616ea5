"""The lecture's claims about autoencoders and VAEs, each with the figures that support or contradict it."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from convvae_trainer.compare.latent_scatter import LatentScatter
from convvae_trainer.compare.model_report import ModelReport

__all__ = ["Claim", "lecture_claims", "three_digits"]

# Reconstructions are called blurry if their sharpness is below this share of the inputs' sharpness.
BLURRY = 0.9
# A subset of the latent dimensions is called small if it is less than half of them.
SMALL_SUBSET = 0.5
# Convergence is called stable if no epoch loses more than this share of the whole gain: near the end of
# training the ELBO fluctuates a little.
SETBACK = 0.05
# The names of the objectives in the lecture.
ADVERSARIAL = {"vae-disl": "VAE_Dis_l", "vae-gan": "VAE/GAN"}

# Whether a case supports the claim, and its numbers in words.
Case = tuple[bool, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim, the criterion that decides on it, and the cases; `missing` says why there are no cases."""

    text: str
    criterion: str
    cases: tuple[Case, ...]
    missing: str

    @property
    def verdict(self) -> str:
        """The verdict as a phrase."""
        if not self.cases:
            return "cannot be said"
        holding = sum(holds for holds, _ in self.cases)
        if holding == len(self.cases):
            return "holds here"
        if not holding:
            return "does not hold here"
        return f"holds in {holding} of {len(self.cases)} cases here"

    def to_json_object(self) -> dict[str, Any]:
        """Return the claim with its verdict as JSON types."""
        return {**asdict(self), "cases": [list(case) for case in self.cases], "verdict": self.verdict}


def lecture_claims(models: Sequence[ModelReport], scatters: Sequence[LatentScatter]) -> list[Claim]:
    """Return the lecture's claims, each with the figures of the models that decide on it."""
    vaes = [model for model in models if model.objective == "vae"]
    with_rate = [model for model in models if model.posterior.rate is not None]
    return [
        Claim(
            text="VAEs map the input into a distribution, autoencoders into a fixed vector.",
            criterion="the mean standard deviation of the posterior is above 0, and an ae has no posterior",
            cases=tuple(_posterior_case(model) for model in models),
            missing="there is no model",
        ),
        _terms_claim(scatters),
        Claim(
            text="VAEs have a reputation for producing blurry reconstructions of images.",
            criterion=f"the sharpness of the reconstructions is below {BLURRY:.0%} of the inputs' sharpness",
            cases=tuple(_blur_case(vae) for vae in vaes),
            missing="there is no vae",
        ),
        Claim(
            text="VAEs tend to only utilise a small subset of the dimensions of z.",
            criterion=f"there are active units, but in fewer than {SMALL_SUBSET:.0%} of the dimensions",
            cases=tuple(_active_units_case(model) for model in with_rate),
            missing="there is no model with a rate",
        ),
        Claim(
            text="VAEs have nice learning dynamics: they are easy to optimise, with stable convergence.",
            criterion=f"no epoch loses {SETBACK:.0%} of the gain of the training ELBO; no step is skipped",
            cases=tuple(case for vae in vaes if (case := _convergence_case(vae)) is not None),
            missing="there is no vae with a loss curve of three epochs",
        ),
        *(_sharper_claim(objective, models, vaes) for objective in ADVERSARIAL),
        *(_realism_claim(objective, models, vaes) for objective in ADVERSARIAL),
    ]


def three_digits(value: float) -> str:
    """Return the number with at least three digits; large numbers have no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _posterior_case(model: ModelReport) -> Case:
    deviation = model.posterior.deviation
    if deviation is None:
        return model.objective == "ae", f"{model.label} ({model.objective}): a point, no deviation"
    words = f"{model.label} ({model.objective}): mean posterior deviation {deviation:.3f}"
    return model.objective != "ae" and deviation > 0, words


def _terms_claim(scatters: Sequence[LatentScatter]) -> Claim:
    cases: tuple[Case, ...] = ()
    if scatters:
        by_terms = {scatter.terms: scatter for scatter in scatters}
        distortion, rate, both = by_terms["distortion"], by_terms["rate"], by_terms["both"]
        cases = (
            (
                distortion.spread > both.spread,
                (
                    f"spread of the posterior means {distortion.spread:.2f} with the reconstruction term"
                    f" alone, {both.spread:.2f} with both"
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


def _blur_case(model: ModelReport) -> Case:
    quality = model.quality
    if not quality.input_sharpness:
        return False, f"{model.label}: the inputs have no edges"
    share = quality.sharpness / quality.input_sharpness
    return share < BLURRY, f"{model.label}: sharpness is {share:.0%} of the inputs'"


def _active_units_case(model: ModelReport) -> Case:
    active, total = model.active_units, model.latent_dim
    words = f"{model.label} ({model.objective}): {active} of {total} active"
    if not active:
        # The posterior has collapsed onto the prior: that is not a subset in use.
        return False, f"{words}: it does not use z"
    return active < SMALL_SUBSET * total, words


def _convergence_case(model: ModelReport) -> Case | None:
    epochs = model.bundle.loss_curves()
    elbos = [epoch.get("elbo") for epoch in epochs]
    numbers = [float(value) for value in elbos if isinstance(value, int | float)]
    if len(numbers) < 3:
        return None
    gain = max(numbers) - numbers[0]
    setback = max(0.0, *(before - after for before, after in itertools.pairwise(numbers)))
    skipped = sum(epoch.get("skipped_steps") or 0 for epoch in epochs)
    words = (
        f"{model.label}: the ELBO gained {three_digits(gain)} nats in {len(numbers)} epochs, the largest"
        f" setback was {three_digits(setback)}; {skipped} steps were skipped"
    )
    return gain > 0 and setback <= SETBACK * gain and not skipped, words


def _sharper_claim(objective: str, models: Sequence[ModelReport], vaes: Sequence[ModelReport]) -> Claim:
    cases = []
    for model, vae in _pairs(objective, models, vaes):
        distance, vae_distance = model.quality.sharpness_distance, vae.quality.sharpness_distance
        if distance is not None and vae_distance is not None:
            words = f"sharpness distance {distance:.3f} of {model.label}, {vae_distance:.3f} of {vae.label}"
            cases.append((distance < vae_distance, words))
    return Claim(
        text=f"{ADVERSARIAL[objective]} reconstructs more sharply than the VAE.",
        criterion="its sharpness is closer to the inputs' sharpness",
        cases=tuple(cases),
        missing=f"this needs a vae and a {objective}",
    )


def _realism_claim(objective: str, models: Sequence[ModelReport], vaes: Sequence[ModelReport]) -> Claim:
    cases = []
    for model, vae in _pairs(objective, models, vaes):
        distance, vae_distance = model.frechet.frechet_reconstructions, vae.frechet.frechet_reconstructions
        if distance is not None and vae_distance is not None:
            mse, vae_mse = model.quality.mse, vae.quality.mse
            words = (
                f"{model.label}: Fréchet {three_digits(distance)}, MSE {mse:.4f};"
                f" {vae.label}: Fréchet {three_digits(vae_distance)}, MSE {vae_mse:.4f}"
            )
            cases.append((distance < vae_distance and mse > vae_mse, words))
    return Claim(
        text=f"{ADVERSARIAL[objective]} looks more like the data than the VAE; its pixels are further off.",
        criterion="the Fréchet distance of its reconstructions is lower, and their MSE is higher",
        cases=tuple(cases),
        missing=f"this needs a vae, a {objective} and labels",
    )


def _pairs(
    objective: str, models: Sequence[ModelReport], vaes: Sequence[ModelReport]
) -> list[tuple[ModelReport, ModelReport]]:
    """Return each model of this objective with each plain VAE."""
    return [(model, vae) for model in models if model.objective == objective for vae in vaes]
