"""The claims of the lecture, decided by figures."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from convvae_service.bundle import ImageShape
from convvae_trainer.compare.claims import Claim, lecture_claims, three_digits
from convvae_trainer.compare.latent_scatter import LatentScatter


def report(label: str, objective: str, **figures: Any) -> Any:
    """Return the figures of a model that claims depend on."""
    values: dict[str, Any] = {"mse": 0.01, "sharp": 0.5, "frechet": 3.0, "active": 4, "elbos": [-3, -2, -1]}
    values |= figures
    has_posterior = objective != "ae"
    epochs = [{"elbo": elbo, "skipped_steps": 0} for elbo in values["elbos"]]
    return SimpleNamespace(
        label=label,
        objective=objective,
        quality=SimpleNamespace(
            mse=values["mse"],
            sharpness=values["sharp"],
            input_sharpness=1.0,
            sharpness_distance=abs(float(np.log(values["sharp"]))),
        ),
        posterior=SimpleNamespace(
            deviation=0.4 if has_posterior else None, rate=5.0 if has_posterior else None
        ),
        active_units=values["active"],
        latent_dim=32,
        frechet=SimpleNamespace(frechet_reconstructions=values["frechet"]),
        bundle=SimpleNamespace(loss_curves=lambda: epochs),
    )


def verdicts(*models: Any, scatters: tuple[LatentScatter, ...] = ()) -> list[str]:
    return [claim.verdict for claim in lecture_claims(models, scatters)]


def test_claims_are_judged_by_the_numbers() -> None:
    """The figures decide whether a claim holds, does not hold, or cannot be said."""
    unsaid = "cannot be said"
    vae = report("v", "vae")
    disl = report("d", "vae-disl", sharp=0.8, mse=0.02, frechet=2.0)
    gan = report("g", "vae-gan", sharp=0.4, mse=0.02, frechet=4.0)
    yes, no = "holds here", "does not hold here"
    assert verdicts(vae, disl, gan) == [yes, unsaid, yes, yes, yes, yes, no, yes, no]
    assert verdicts(report("a", "ae")) == [yes, *[unsaid] * 8]
    sharp = report("w", "vae", sharp=0.95, active=20, elbos=[-3, -1, -2])
    assert verdicts(sharp)[2:5] == [no, no, no]
    assert verdicts(vae, sharp)[2:5] == ["holds in 1 of 2 cases here"] * 3
    assert verdicts(report("c", "vae", active=0))[3] == no
    assert verdicts(report("s", "vae", elbos=[-1]))[4] == unsaid


def test_the_scatters_decide_over_the_two_terms() -> None:
    """The claim on the terms holds where the reconstruction term spreads and the KL term does not."""

    def scatter(terms: Any, spread: float, rate: float) -> LatentScatter:
        return LatentScatter(
            terms=terms,
            draws=np.zeros((1, 2), np.float32),
            labels=None,
            spread=spread,
            deviation=1.0,
            rate=rate,
            distortion=1.0,
            separation=None,
            train_images=1,
            test_images=1,
            image=ImageShape(height=8, width=8, channels=1),
        )

    both = scatter("both", 1.5, 3.0)
    good = (scatter("distortion", 8.0, 30.0), scatter("rate", 0.0, 0.0), both)
    bad = (scatter("distortion", 1.0, 30.0), scatter("rate", 2.0, 0.0), both)
    assert verdicts(scatters=good)[1] == "holds here"
    assert verdicts(scatters=bad)[1] == "does not hold here"


def test_a_claims_json_has_its_verdict() -> None:
    """Numbers and verdict stand together in the JSON file."""
    claim = Claim(text="t", criterion="c", cases=((True, "a"), (False, "b")), missing="m")
    assert claim.to_json_object()["verdict"] == "holds in 1 of 2 cases here"
    assert claim.to_json_object()["cases"] == [[True, "a"], [False, "b"]]


def test_three_digits_have_no_exponent_where_large() -> None:
    """Small numbers keep three digits, large ones all of them."""
    assert [three_digits(value) for value in (1234.5, 12.34, 0.012345)] == ["1,234", "12.3", "0.0123"]
    assert three_digits(14) == "14.0"
