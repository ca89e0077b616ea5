"""The table of objectives: the class of each, the settings that it alone uses, and its defaults.

A new objective is one file in `objectives/` and one row here. This module does not import torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["OBJECTIVES", "ObjectiveRow", "settings_by_user"]

_BOUND_SETTINGS = ("sigma", "binarize", "early_stop_epochs")
_RATE_SETTINGS = ("beta", "free_bits")
_ADVERSARIAL_SETTINGS = ("adversarial_loss", "gradient_penalty", "discriminator_width")
# Reconstructions are measured in features; a Gaussian is fitted to the pixels at the end.
_ADVERSARIAL_NEEDS = {"likelihood": "gaussian"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveRow:
    """An objective as the settings know it.

    `class_path` is "module:class". `settings` names the settings that not every objective uses. `defaults`
    replace the defaults of `Config`. `needs` are values that other settings must have.
    """

    class_path: str
    help: str
    settings: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)


OBJECTIVES: dict[str, ObjectiveRow] = {
    "ae": ObjectiveRow(
        class_path="convvae_trainer.objectives.ae:Ae",
        help="An autoencoder: it minimises the distortion alone and cannot sample.",
        settings=_BOUND_SETTINGS,
    ),
    "vae": ObjectiveRow(
        class_path="convvae_trainer.objectives.vae:Vae",
        help="A variational autoencoder: it maximises the evidence lower bound (ELBO).",
        settings=(*_BOUND_SETTINGS, *_RATE_SETTINGS, "kl_warmup_epochs", "importance_samples", "terms"),
    ),
    "vae-disl": ObjectiveRow(
        class_path="convvae_trainer.objectives.vae_disl:VaeDisl",
        help="VAE_Dis_l: a GAN first, then a VAE that measures its reconstructions in the GAN's features.",
        settings=(*_RATE_SETTINGS, *_ADVERSARIAL_SETTINGS, "gan_share"),
        defaults=_ADVERSARIAL_NEEDS,
        needs=_ADVERSARIAL_NEEDS,
    ),
    "vae-gan": ObjectiveRow(
        class_path="convvae_trainer.objectives.vae_gan:VaeGan",
        help="VAE/GAN: a VAE and a GAN that share the decoder and train together.",
        settings=(
            *_RATE_SETTINGS,
            "kl_warmup_epochs",
            *_ADVERSARIAL_SETTINGS,
            "adversarial_weight",
            "adaptive_weight",
            "adversarial_start",
        ),
        defaults=_ADVERSARIAL_NEEDS,
        needs=_ADVERSARIAL_NEEDS,
    ),
}


def settings_by_user() -> dict[str, tuple[str, ...]]:
    """Return, for each setting that not every objective uses, the objectives that use it."""
    names = dict.fromkeys(name for row in OBJECTIVES.values() for name in row.settings)
    return {
        name: tuple(objective for objective, row in OBJECTIVES.items() if name in row.settings)
        for name in names
    }
