"""The claims of the lecture on single systems, decided by figures."""

from typing import Any

import numpy as np
import pytest

from convvae_service.bundle import ImageShape
from convvae_trainer.compare.claim import Case, Claim, difference_case, limit_case, three_digits
from convvae_trainer.compare.claims import lecture_claims
from convvae_trainer.compare.latent_scatter import LatentScatter
from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.compare.spread import Spread
from convvae_trainer.compare.system import make_systems
from support.compared_models import manifest_of, measured

UNSAID = "cannot be said"
IMAGES = np.kron(
    np.random.default_rng(0).integers(0, 256, (20, 5, 5, 1), dtype=np.uint8), np.ones((1, 3, 3, 1), np.uint8)
)


def reconstructed(manifest: Any, share: float = 0.9) -> ModelReport:
    """Return the report of a model whose reconstructions have this share of the contrast."""
    mean = IMAGES.mean()
    return measured(manifest, IMAGES, np.rint(mean + share * (IMAGES - mean)).astype(np.uint8))


def changed(model: ModelReport, **figures: Any) -> ModelReport:
    """Return the model with other figures."""
    for name, value in figures.items():
        object.__setattr__(model, name, value)
    return model


def verdicts(*models: ModelReport, scatters: tuple[LatentScatter, ...] = ()) -> list[str]:
    return [claim.verdict for claim in lecture_claims(make_systems(models), scatters)]


def vaes(share: float, seeds: tuple[int, ...] = (0, 1, 2)) -> list[ModelReport]:
    return [reconstructed(manifest_of("vae", seed=seed), share + 0.005 * seed) for seed in seeds]


def test_each_kind_of_model_decides_on_its_claims() -> None:
    """An autoencoder is a point; it says nothing of VAEs, and without a pair no pair is judged."""
    assert verdicts(reconstructed(manifest_of("ae"))) == ["holds here", *[UNSAID] * 8]
    one = verdicts(*vaes(0.7, (0,)))
    assert one[0] == "holds here"
    assert one[2] == "holds for one seed"
    assert one[4] == "holds for one seed"
    assert one[5:] == [UNSAID] * 4


def test_blur_is_a_matter_of_sharpness_beyond_the_spread_of_seeds() -> None:
    """Little contrast at edges is blurry, most of it is not, and near the limit it cannot be said."""
    assert verdicts(*vaes(0.7))[2] == "holds here"
    assert verdicts(*vaes(0.98))[2] == "does not hold here"
    # Sharpness is a variance: the square root of 0.9 is the contrast at the limit.
    assert verdicts(*vaes(0.9437))[2] == UNSAID


def test_a_blur_that_is_not_the_image_says_nothing_of_vaes() -> None:
    """A VAE that draws the mean image is no case of blurry reconstructions."""
    grey = [
        measured(manifest_of("vae", seed=seed), IMAGES, np.full_like(IMAGES, 127 + seed)) for seed in range(3)
    ]
    claim = lecture_claims(make_systems(grey), ())[2]
    assert claim.verdict == UNSAID
    assert "are not the images: SSIM" in claim.cases[0].words


def test_active_units_are_a_small_subset_if_they_are_less_than_half() -> None:
    """None at all is a collapsed posterior, and not a subset in use."""
    for active, verdict in (
        ((1, 1, 1), "holds here"),
        ((4, 4, 4), "does not hold here"),
        ((0, 0, 0), "does not hold here"),
        ((1, 2, 3), UNSAID),
    ):
        models = [changed(model, active_units=count) for model, count in zip(vaes(0.7), active, strict=True)]
        assert verdicts(*models)[3] == verdict, active


@pytest.mark.parametrize(
    ("curves", "verdict"),
    [
        ([[-3, -2, -1]] * 3, "holds here"),
        ([[-3, -1, -2]] * 3, "does not hold here"),
        ([[-3, -2, -1], [-3, -2, -1], [-3, -1, -2]], UNSAID),
        ([[-1], [-1], [-1]], UNSAID),
    ],
)
def test_convergence_is_stable_if_it_is_with_each_seed(curves: list[list[float]], verdict: str) -> None:
    """A setback in one seed of several leaves the claim open; fewer than three epochs do not count."""
    models = vaes(0.7)
    for model, elbos in zip(models, curves, strict=True):
        epochs = [{"elbo": elbo, "skipped_steps": 0} for elbo in elbos]
        model.bundle.loss_curves = lambda epochs=epochs: epochs  # type: ignore[method-assign, misc]
    assert verdicts(*models)[4] == verdict


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"beta": 4.0}, "beta 4"),
        ({"free_bits": 0.5}, "free_bits 0.5"),
        ({"importance_samples": 5}, "samples 5"),
    ],
)
def test_another_vae_than_the_lectures_has_no_vote(settings: dict[str, Any], named: str) -> None:
    """A weight of the rate makes a VAE blurrier or sharper at will: the claims are not on such models."""
    models = [reconstructed(manifest_of("vae", seed=seed, settings=settings), 0.7) for seed in range(3)]
    claims = lecture_claims(make_systems(models), ())
    assert [claim.verdict for claim in claims[2:5]] == [UNSAID] * 3
    assert named in claims[2].cases[0].words


def test_a_system_of_one_seed_has_no_vote_beside_one_of_several() -> None:
    """Three seeds decide, and the single run of another setting is only listed."""
    other = reconstructed(manifest_of("vae", seed=7, settings={"width": 16}), 0.99)
    claim = lecture_claims(make_systems([*vaes(0.7), other]), ())[2]
    assert claim.verdict == "holds here"
    assert len(claim.cases) == 2


def scatter(terms: Any, spread: float, rate: float, seed: int = 0) -> LatentScatter:
    return LatentScatter(
        terms=terms,
        seed=seed,
        likelihood="gaussian",
        draws=np.zeros((1, 2), np.float32),
        labels=None,
        spread=spread + 0.01 * seed,
        deviation=1.0,
        rate=rate + 0.01 * seed,
        distortion=1.0,
        separation=None,
        train_images=1,
        test_images=1,
        image=ImageShape(height=8, width=8, channels=1),
    )


def test_the_scatters_decide_over_the_two_terms() -> None:
    """The claim on the terms holds where the reconstruction term spreads and the KL term does not."""

    def verdict(spreads: dict[str, float], seeds: int) -> str:
        rates = {"distortion": 30.0, "rate": 0.0, "both": 3.0}
        made = [
            scatter(terms, spread, rates[terms], seed)
            for seed in range(seeds)
            for terms, spread in spreads.items()
        ]
        return verdicts(scatters=tuple(made))[1]

    good = {"distortion": 8.0, "rate": 0.0, "both": 1.5}
    assert verdict(good, 3) == "holds here"
    assert verdict(good, 1) == UNSAID
    assert verdict({"distortion": 1.0, "rate": 2.0, "both": 1.5}, 3) == "holds in 1 of 3 cases here"
    assert verdicts()[1] == UNSAID


def test_a_claims_json_has_its_verdict() -> None:
    """Numbers and verdict stand together in the JSON file."""
    cases = (Case(holds=True, words="a"), Case(holds=False, words="b"))
    claim = Claim(text="t", criterion="c", cases=cases, missing="m")
    found = claim.to_json_object()
    assert found["verdict"] == "holds in 1 of 2 cases here"
    assert [(case["holds"], case["words"]) for case in found["cases"]] == [(True, "a"), (False, "b")]


def test_cases_that_cannot_be_compared_have_no_vote() -> None:
    """They neither support a claim nor contradict it; with no other case nothing can be said."""
    unmatched = Case(holds=None, words="u", is_comparable=False)
    held = Case(holds=True, words="h")

    def verdict(*cases: Case) -> str:
        return Claim(text="t", criterion="c", cases=cases, missing="m").verdict

    assert verdict(unmatched, held) == "holds here"
    assert verdict(unmatched) == verdict() == UNSAID
    within = Case(holds=None, words="within")
    assert verdict(held, within) == "holds in 1 of 2 cases here"
    assert verdict(Case(holds=False, words="f"), within) == "does not hold in 1 of 2 cases here"


def test_a_limit_is_met_beyond_the_spread_of_seeds() -> None:
    """One seed decides for its own run, and says so; seeds on both sides leave it open."""
    assert limit_case("w", Spread((0.5,)), 0.9, wanted=-1) == Case(holds=True, words="w", is_one_seed=True)
    assert limit_case("w", Spread((0.5, 0.6, 0.7)), 0.9, wanted=-1).holds is True
    assert limit_case("w", Spread((0.5, 0.6, 0.7)), 0.1, wanted=-1).holds is False
    assert limit_case("w", Spread((0.5, 1.0, 0.8)), 0.9, wanted=-1).holds is None


def test_three_digits_have_no_exponent_where_large() -> None:
    """Small numbers keep three digits, large ones all of them."""
    assert [three_digits(value) for value in (1234.5, 12.34, 0.012345)] == ["1,234", "12.3", "0.0123"]
    assert three_digits(14) == "14.0"


def test_two_seeds_that_cannot_tell_are_named() -> None:
    """A wide difference may be within the spread of two seeds, and the words say why; three tell it."""
    near, far = Spread((0.0, 0.001)), Spread((2.3, 2.8))
    case = difference_case("spread", near, far, wanted=-1)
    assert case.holds is None
    assert case.words == "spread; within the spread of seeds: two seeds tell only very large differences"
    limited = limit_case("rate", far, 1.0, wanted=1)
    assert limited.holds is None
    assert limited.words.endswith("two seeds tell only very large differences")
    more = Spread((0.0, 0.001, 0.0005)), Spread((2.3, 2.8, 2.6))
    assert difference_case("spread", *more, wanted=-1) == Case(holds=True, words="spread")
    wide = difference_case("spread", Spread((1.0, 2.0, 3.0)), Spread((2.0, 3.0, 1.5)), wanted=-1)
    assert wide.words == "spread; within the spread of seeds"
