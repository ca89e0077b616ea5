"""The comparison with the paper's formulas has teeth: it notices each wrong route of a gradient."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from convvae_trainer.objectives import vae_disl, vae_gan
from convvae_trainer.objectives.adversarial import adversarial_losses
from convvae_trainer.objectives.base import Gradients
from convvae_trainer.objectives.bound import Terms, kl_to_prior
from support.adversarial_formulas import BATCH, Case, Change, check_gan, check_vae_disl, check_vae_gan

Check = Callable[[Case, Change | None], None]


def losses(**replaced: Callable[[Any], Tensor]) -> Change:
    """Replace losses of the VAE by functions of all of them."""

    def change(objective: Any) -> None:
        name = "losses" if isinstance(objective, vae_gan.VaeGan) else "vae_losses"
        right = getattr(objective, name)

        def wrong(*args: Any) -> Any:
            true = right(*args)
            return dataclasses.replace(true, **{field: loss(true) for field, loss in replaced.items()})

        setattr(objective, name, wrong)

    return change


def judged(wrong: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Change:
    """Replace what the discriminator returns by a function of (features, logits)."""

    def change(objective: Any) -> None:
        right = objective.discriminate
        objective.discriminate = lambda x_BCHW: wrong(*right(x_BCHW))

    return change


def method(name: str, wrong: Callable[..., Any]) -> Change:
    """Replace a method by `wrong`, which gets the right method and its arguments."""

    def change(objective: Any) -> None:
        right = getattr(objective, name)
        setattr(objective, name, lambda *args, **kwargs: wrong(right, *args, **kwargs))

    return change


def all_of(*changes: Change) -> Change:
    """Make several changes."""

    def change(objective: Any) -> None:
        for one in changes:
            one(objective)

    return change


def attached_terms(objective: Any) -> None:
    """Leave the reconstruction attached to the graph, so that the pixels' distortion reaches the networks."""

    def pixel_terms(x: Tensor, recon: Tensor, mean: Tensor, log_variance: Tensor) -> Terms:
        distortion = objective.likelihood.evaluated_distortion(recon, x)
        return Terms(distortion=distortion, rates=kl_to_prior(mean, log_variance), mean=mean)

    objective.pixel_terms = pixel_terms


def prior_features(features: Tensor, logit: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat((features[:BATCH], features[2 * BATCH :], features[2 * BATCH :])), logit


def prior_logits(features: Tensor, logit: Tensor) -> tuple[Tensor, Tensor]:
    return features, torch.cat((logit[:BATCH], logit[2 * BATCH :], logit[2 * BATCH :]))


def recon_logits(features: Tensor, logit: Tensor) -> tuple[Tensor, Tensor]:
    return features, logit[: 2 * BATCH]


def exchanged(features: Tensor, logit: Tensor) -> tuple[Tensor, Tensor]:
    return features, torch.cat((logit[BATCH:], logit[:BATCH]))


def logits_as_features(features: Tensor, logit: Tensor) -> tuple[Tensor, Tensor]:
    return logit[:, None], logit


def weight_on_the_reconstruction(right: Any, losses: Any, *args: Any, **kwargs: Any) -> Gradients:
    """Weigh the other part of the decoder's gradient."""
    gradients: Gradients = right(losses, *args, **kwargs)
    decoder, weight = right.__self__.parameters("decoder"), gradients.figures["adversarial_weight"]
    recon, adversarial = (
        torch.autograd.grad(loss, decoder, retain_graph=True)
        for loss in (losses.encoding, losses.adversarial)
    )
    wrong = tuple(weight * r + a for r, a in zip(recon, adversarial, strict=True))
    return dataclasses.replace(gradients, by_network=gradients.by_network | {"decoder": wrong})


def with_bias_as_output(objective: Any) -> None:
    """Compare gradients of the last layer's bias."""

    class Biased(vae_gan.VaeGan):
        @property
        def output_weight(self) -> Tensor:
            bias = self.model.decoder.output_layer.bias
            assert bias is not None
            return bias

    objective.__class__ = Biased


def no_feature_gradient(right: Any, *args: Any, **kwargs: Any) -> Gradients:
    gradients: Gradients = right(*args, **kwargs)
    nothing = tuple(0 * gradient for gradient in gradients.by_network["features"])
    return dataclasses.replace(gradients, by_network=gradients.by_network | {"features": nothing})


def trained_discriminator(objective: Any) -> None:
    """Have the discriminator follow the features' distortion."""
    right = objective.vae_gradients

    def wrong(losses: Any) -> Gradients:
        gradients: Gradients = right(losses)
        own = torch.autograd.grad(
            losses.encoding, objective.parameters("discriminator"), materialize_grads=True
        )
        return dataclasses.replace(gradients, by_network=gradients.by_network | {"discriminator": own})

    objective.vae_gradients = wrong


# The wrong routes: the check that must notice, the settings of its case, and the change.
MUTANTS: dict[str, tuple[Check, dict[str, Any], Change]] = {
    "adversarial gradient also to the encoder": (
        check_vae_gan,
        {},
        losses(encoding=lambda true: true.encoding + true.adversarial),
    ),
    "reconstruction also to the discriminator": (
        check_vae_gan,
        {},
        losses(discrimination=lambda true: true.discrimination + true.feature_distortion),
    ),
    "decoder helps the discriminator": (
        check_vae_gan,
        {},
        method("weight", lambda right, *args, **kwargs: -right(*args, **kwargs)),
    ),
    "decoder descends the discrimination": (
        check_vae_gan,
        {},
        losses(adversarial=lambda true: true.discrimination),
    ),
    "weight on the reconstruction": (check_vae_gan, {}, method("backward", weight_on_the_reconstruction)),
    "pixels' likelihood into the networks": (
        check_vae_gan,
        {},
        all_of(attached_terms, losses(encoding=lambda true: true.encoding + true.pixel_distortion)),
    ),
    "encoder without the rate": (check_vae_gan, {}, losses(encoding=lambda true: true.feature_distortion)),
    "features of prior draws": (check_vae_gan, {}, judged(prior_features)),
    "reconstructions not judged": (check_vae_gan, {}, judged(prior_logits)),
    "prior draws not judged": (check_vae_gan, {}, judged(recon_logits)),
    "adversarial from the start": (
        check_vae_gan,
        {"is_later_phase": False},
        method("weight", lambda right, *args, **_: right(*args, is_later_phase=True)),
    ),
    "adapted to the bias": (check_vae_gan, {"adaptive": True}, with_bias_as_output),
    "features' sigma left alone": (check_vae_gan, {}, method("backward", no_feature_gradient)),
    "discriminator learns in vae-disl": (check_vae_disl, {}, trained_discriminator),
    "vae-disl on pixels": (
        check_vae_disl,
        {},
        all_of(
            attached_terms,
            losses(encoding=lambda true: true.encoding - true.feature_distortion + true.pixel_distortion),
        ),
    ),
    "features are logits": (check_vae_disl, {}, judged(logits_as_features)),
    "decoder and discriminator have one loss": (
        check_gan,
        {},
        method("gan_losses", lambda right, *args: (right(*args)[1],) * 2 + right(*args)[2:]),
    ),
    "too steep a penalty in the GAN": (
        check_gan,
        {"penalty": 4.0},
        method("slope_penalty", lambda right, *args: 2 * right(*args)),
    ),
    "no penalty in VAE/GAN": (
        check_vae_gan,
        {"penalty": 4.0},
        losses(slope_penalty=lambda true: 0 * true.slope_penalty),
    ),
    "real and fake exchanged": (check_gan, {}, judged(exchanged)),
}


@pytest.mark.parametrize(("check", "settings", "change"), MUTANTS.values(), ids=MUTANTS.keys())
def test_a_wrong_route_is_noticed(check: Check, settings: dict[str, Any], change: Change) -> None:
    """The comparison passes on the objective as it is, and fails once a route in it is changed."""
    check(Case(**settings), None)
    with pytest.raises(AssertionError):
        check(Case(**settings), change)


def test_an_ascending_minimax_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sign of the decoder's loss in `minimax` matters."""
    check_gan(Case(loss="minimax"))

    def ascending(kind: str, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        discrimination, adversarial = adversarial_losses(kind, real, fake)
        return discrimination, -adversarial

    monkeypatch.setattr(vae_disl, "adversarial_losses", ascending)
    with pytest.raises(AssertionError):
        check_gan(Case(loss="minimax"))
