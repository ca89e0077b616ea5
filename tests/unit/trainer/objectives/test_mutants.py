"""The comparison of gradients has teeth: adversarial.py is changed on purpose, and it has to notice."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convvae_trainer.objectives import adversarial
from unit.trainer.objectives.test_adversarial import Game, check_gan, check_vae_disl, check_vae_gan

Check = Callable[[Any, Game], None]
Edit = tuple[str, str]
VAE_GAN, VAE_DISL, GAN = "def vae_gan_gradients(", "def vae_disl_gradients(", "def gan_gradients("
SUM = "rate + feature_distortion, of["
JUDGED = 'gradients_of(discrimination, of["discriminator"])'
PLAYED = 'gradients_of(adversarial, of["decoder"])'
# What is changed on purpose: in which function, and who has to notice.
MUTANTS: dict[str, tuple[Check, dict[str, Any], str, list[Edit]]] = {
    "adversarial gradient also to the encoder": (
        check_vae_gan,
        {},
        VAE_GAN,
        [(SUM, "rate + feature_distortion + adversarial, of[")],
    ),
    "reconstruction also to the discriminator": (
        check_vae_gan,
        {},
        VAE_GAN,
        [(JUDGED, JUDGED.replace("(discrimination", "(discrimination + feature_distortion"))],
    ),
    "decoder plays for the discriminator": (
        check_vae_gan,
        {},
        VAE_GAN,
        [("r + weight * p", "r - weight * p")],
    ),
    "decoder descends the discrimination": (
        check_vae_gan,
        {},
        VAE_GAN,
        [(PLAYED, PLAYED.replace("adversarial", "discrimination"))],
    ),
    "weight on the reconstruction": (check_vae_gan, {}, VAE_GAN, [("r + weight * p", "weight * r + p")]),
    "pixels' likelihood into the networks": (
        check_vae_gan,
        {},
        VAE_GAN,
        [
            ("terms = _terms(", "terms = _attached("),
            (SUM, "rate + feature_distortion + terms.distortion.mean(), of["),
        ],
    ),
    "encoder without the rate": (check_vae_gan, {}, VAE_GAN, [(SUM, "feature_distortion, of[")]),
    "features of prior draws": (
        check_vae_gan,
        {},
        VAE_GAN,
        [("features[count : 2 * count]", "features[2 * count :]")],
    ),
    "reconstructions not judged": (check_vae_gan, {}, VAE_GAN, [("logit[count:]", "logit[2 * count :]")]),
    "prior draws not judged": (check_vae_gan, {}, VAE_GAN, [("logit[count:]", "logit[count : 2 * count]")]),
    "plays from the start": (
        check_vae_gan,
        {"is_played": False},
        VAE_GAN,
        [("parts.adversarial_weight * is_played", "parts.adversarial_weight")],
    ),
    "adapted to the bias": (
        check_vae_gan,
        {"adaptive": True},
        VAE_GAN,
        [("recon_grad[-2], adv_grad[-2]", "recon_grad[-1], adv_grad[-1]")],
    ),
    "features' sigma left alone": (
        check_vae_gan,
        {},
        VAE_GAN,
        [('"features": feature_sigma', '"features": tuple(0 * s for s in feature_sigma)')],
    ),
    "discriminator learns in vae-disl": (
        check_vae_disl,
        {},
        VAE_DISL,
        [
            (SUM, SUM.replace("of[", 'of["discriminator"], of[')),
            ("encoder, decoder, features = ", "discriminator, encoder, decoder, features = "),
            ('of={"encoder": encoder', 'of={"discriminator": discriminator, "encoder": encoder'),
        ],
    ),
    "vae-disl on pixels": (
        check_vae_disl,
        {},
        VAE_DISL,
        [("features.distortion(real_BF, recon_BF)", "likelihood.distortion(recon_BCHW, x_BCHW)")],
    ),
    "features are logits": (
        check_vae_disl,
        {},
        VAE_DISL,
        [("recon_BCHW)))[0].chunk(2)", "recon_BCHW)))[1][:, None].chunk(2)")],
    ),
    "both play the decoder's game": (
        check_gan,
        {},
        GAN,
        [(JUDGED, JUDGED.replace("(discrimination", "(adversarial"))],
    ),
    "real and made exchanged": (
        check_gan,
        {},
        GAN,
        [("real_B, fake_B = logit.chunk(2)", "fake_B, real_B = logit.chunk(2)")],
    ),
    "minimax ascends": (
        check_gan,
        {"loss": "minimax"},
        "def adversarial_losses(",
        [("return discrimination, -softplus(fake_B)", "return discrimination, softplus(fake_B)")],
    ),
}
# Leaves the reconstruction attached to the graph, as `_terms` does not.
ATTACHED = """

def _attached(parts, x_BCHW, recon_BCHW, mean_BZ, log_variance_BZ):
    distortion_B = parts.likelihood.evaluated_distortion(recon_BCHW, x_BCHW)
    return Terms(distortion=distortion_B, rates=kl_to_prior(mean_BZ, log_variance_BZ), mean=mean_BZ)
"""


def mutated(monkeypatch: pytest.MonkeyPatch, function: str, edits: list[Edit]) -> types.ModuleType:
    """Return adversarial.py as a module of its own, `edits` made in one function; each text occurs once."""
    text = Path(adversarial.__file__).read_text()
    before, found, rest = text.partition(f"\n{function}")
    assert found, function
    body, next_function, after = rest.partition("\n\n\n")
    for old, new in edits:
        assert body.count(old) == 1, old
        body = body.replace(old, new)
    module = types.ModuleType("mutated_adversarial")
    # Data classes look their module up.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = before + found + body + next_function + after + ATTACHED
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    return module


@pytest.mark.parametrize(("check", "settings", "function", "edits"), MUTANTS.values(), ids=MUTANTS.keys())
def test_a_wrong_route_is_noticed(
    monkeypatch: pytest.MonkeyPatch, check: Check, settings: dict[str, Any], function: str, edits: list[Edit]
) -> None:
    """The comparison passes on the source as it is, and fails once a route in it is changed."""
    check(mutated(monkeypatch, function, []), Game(**settings))
    changed = mutated(monkeypatch, function, edits)
    with pytest.raises(AssertionError):
        check(changed, Game(**settings))
