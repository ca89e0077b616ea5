"""The lecture's claims on a pair of systems: an adversarial one and the VAE that is trained alike.

A pair is judged only if both are matched in all that matters for a claim on both: likelihood, latents, data,
steps and networks. The reconstructions have to be the images still: see `floors`.
"""

from collections.abc import Callable, Sequence

from convvae_trainer.compare.claim import Case, Claim, difference_case, three_digits
from convvae_trainer.compare.floors import FLOORS, shortfall
from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.compare.recipe import LECTURE_NAMES, differences, unlike_the_lecture
from convvae_trainer.compare.spread import Spread
from convvae_trainer.compare.system import System

__all__ = ["at_own_size", "realism_claim", "sharper_claim"]

_Figure = Callable[[ModelReport], float | None]


def sharper_claim(objective: str, systems: Sequence[System]) -> Claim:
    """Return the claim that an objective reconstructs more sharply than the VAE."""
    return Claim(
        text=f"{LECTURE_NAMES[objective]} reconstructs more sharply than the VAE.",
        criterion="its sharpness is closer to the inputs' sharpness, at the inputs' own size and at half of"
        f" that, where checkerboards vanish; {FLOORS}",
        cases=_cases(objective, systems, _sharper_cases),
        missing=_missing(objective),
    )


def realism_claim(objective: str, systems: Sequence[System]) -> Claim:
    """Return the claim that an objective looks more like the data than the VAE, at a higher pixel error."""
    return Claim(
        text=f"{LECTURE_NAMES[objective]} looks more like the data than the VAE; its pixels are further off.",
        criterion=f"the Fréchet distance of its reconstructions is lower, and their MSE is higher; {FLOORS}",
        cases=_cases(objective, systems, _realism_cases),
        missing=f"{_missing(objective)}, and a classifier for Fréchet distances",
    )


def at_own_size(system: System) -> str:
    """Return at which size sharpness is judged, in words; "" for images that were not enlarged."""
    sized = system.first.sized
    return f" at {sized.height}x{sized.width} (the images' own size)" if sized.halvings else ""


def _missing(objective: str) -> str:
    return f"this needs a VAE and a {LECTURE_NAMES[objective]}"


def _sharper_cases(system: System, vae: System) -> list[Case | None]:
    noisy = sum(member.sized.is_noisy for member in system.members)
    if noisy:
        words = (
            f"noise finer than the images' edges, in {noisy} of {len(system.members)} runs of {system.name}"
        )
        return [Case(holds=False, words=words)] * 2
    return [
        _case(f"sharpness distance{at_own_size(system)}", _own_distance, system, vae, wanted=-1),
        _case("sharpness distance at half size", _half_distance, system, vae, wanted=-1),
    ]


def _realism_cases(system: System, vae: System) -> list[Case | None]:
    return [
        _case(
            "Fréchet distance", lambda model: model.frechet.frechet_reconstructions, system, vae, wanted=-1
        ),
        _case("MSE", lambda model: model.quality.mse, system, vae, wanted=1),
    ]


def _own_distance(model: ModelReport) -> float | None:
    return model.sized.own_size.sharpness_distance


def _half_distance(model: ModelReport) -> float | None:
    return model.sized.half_size.sharpness_distance


def _cases(
    objective: str,
    systems: Sequence[System],
    judge: Callable[[System, System], Sequence[Case | None]],
) -> tuple[Case, ...]:
    """Return a case for each system of the objective and each VAE that it is matched with."""
    vaes = [system for system in systems if system.objective == "vae"]
    cases: list[Case] = []
    for system in systems:
        if system.objective != objective or not vaes:
            continue
        reasons = {vae.name: _unmatched(system, vae) for vae in vaes}
        matched = [vae for vae in vaes if not reasons[vae.name]]
        if not matched:
            nearest = min(vaes, key=lambda vae: len(reasons[vae.name]))
            words = f"{system.name} and {nearest.name} are not matched: {'; '.join(reasons[nearest.name])}"
            cases.append(Case(holds=None, words=words, is_comparable=False))
        cases += [case for vae in matched if (case := _judged(system, vae, judge)) is not None]
    return tuple(cases)


def _unmatched(system: System, vae: System) -> list[str]:
    found = differences(system.recipes, vae.recipes)
    reason = unlike_the_lecture(vae.recipes[0])
    return [*found, f"{vae.name} is not the lecture's VAE: {reason}"] if reason else found


def _judged(
    system: System, vae: System, judge: Callable[[System, System], Sequence[Case | None]]
) -> Case | None:
    """Return the case of a matched pair; None if a figure is missing."""
    parts = [case for case in judge(system, vae) if case is not None]
    words = "; ".join([f"{system.name} and {vae.name}", *(case.words for case in parts)])
    if reason := shortfall(vae):
        return Case(holds=None, words=f"{words}; {reason}", is_comparable=False)
    if reason := shortfall(system, vae):
        is_one_seed = min(len(system.members), len(vae.members)) == 1
        return Case(holds=False, words=f"{words}; {reason}", is_one_seed=is_one_seed)
    if len(parts) < 2:
        return None
    holds = [case.holds for case in parts]
    if False in holds:
        return Case(holds=False, words=words)
    return Case(holds=None if None in holds else True, words=words)


def _case(name: str, figure: _Figure, system: System, vae: System, *, wanted: int) -> Case | None:
    a, b = system.spread(figure), vae.spread(figure)
    if a is None or b is None:
        return None
    return difference_case(f"{name} {_shown(a)} against {_shown(b)}", a, b, wanted=wanted)


def _shown(figure: Spread) -> str:
    deviation = figure.deviation
    return three_digits(figure.mean) + ("" if deviation is None else f" ± {three_digits(deviation)}")
