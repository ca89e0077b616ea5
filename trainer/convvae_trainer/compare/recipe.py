"""How a published model was trained, as far as its manifest says it, and where two trainings differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from convvae_service.bundle import Manifest
from convvae_trainer.exports.model_card import UNFINISHED
from convvae_trainer.exports.training_record import DATA_SHA256, ENDS, SETTINGS, STEPS, WEIGHTS_FROM
from convvae_trainer.settings import config
from convvae_trainer.settings.declaration import Panel, plain

__all__ = ["LECTURE_NAMES", "Recipe", "differences", "unlike_the_lecture"]

# The names of the objectives in the lecture, after Larsen et al. 2016.
LECTURE_NAMES = {"ae": "AE", "vae": "VAE", "vae-disl": "VAE_Dis_l", "vae-gan": "VAE/GAN"}
# The lecture's VAE maximises the ELBO, with nothing added and no weight changed.
LECTURE_VAE: Mapping[str, Any] = {
    "beta": 1.0,
    "free_bits": 0.0,
    "importance_samples": 1,
    "terms": "both",
    "sigma": None,
}
# Settings in which two systems have to agree for a claim on both, beside those of the networks.
_SHARED = ("batch_size", "ema_decay", "binarize")
# A setting that an objective does not have acts like this value.
_ABSENT = {"binarize": "none"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The training of a model. `settings` is None in bundles that do not record them.

    `steps` and `data_sha256` are None there too. `share_done` is below 1 for a run that has not ended.
    `weights_from` names the first weights. `ends` is "one" for a run whose end was never moved.
    """

    objective: str
    likelihood: str
    latent_dim: int
    images: int
    epochs: float
    share_done: float
    precision: str
    weights_from: str
    ends: str
    steps: int | None
    data_sha256: str | None
    settings: Mapping[str, Any] | None

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Return what a manifest says of the training. Settings that contradict it count as not recorded."""
        training, metrics = manifest.training, manifest.training.metrics
        settings, steps, sha256 = metrics.get(SETTINGS), metrics.get(STEPS), metrics.get(DATA_SHA256)
        expected: dict[str, Any] = {
            "objective": manifest.objective,
            "likelihood": manifest.likelihood.name,
            "latent_dim": manifest.latent_dim,
        }
        is_sound = (
            isinstance(settings, dict)
            and type(steps) is int
            and isinstance(sha256, str)
            and all(settings.get(name) == value for name, value in expected.items())
        )
        share = metrics.get(UNFINISHED, 1.0)
        return cls(
            **expected,
            images=training.images,
            epochs=training.epochs,
            share_done=float(share) if isinstance(share, int | float) else 1.0,
            precision=str(metrics.get("training_precision", "")),
            weights_from=str(metrics.get(WEIGHTS_FROM, "random")),
            ends=str(metrics.get(ENDS, "one")),
            steps=steps if is_sound else None,
            data_sha256=sha256 if is_sound else None,
            settings=settings if is_sound else None,
        )

    @property
    def is_recorded(self) -> bool:
        """Whether the bundle records the settings of the training."""
        return self.settings is not None

    def is_like(self, other: "Recipe") -> bool:
        """Return whether both trainings differ in nothing but the seed; False if either is not recorded."""
        if self.settings is None or other.settings is None:
            return False
        # A run by time, or one that stops by itself, has another number of steps with each seed.
        has_free_end = any(self.settings.get(name) is not None for name in ("minutes", "early_stop_epochs"))
        same_end = has_free_end or (self.steps, self.epochs) == (other.steps, other.epochs)
        names = ("images", "precision", "data_sha256", "settings", "share_done", "weights_from", "ends")
        return same_end and all(getattr(self, name) == getattr(other, name) for name in names)


def differences(a: Sequence[Recipe], b: Sequence[Recipe]) -> list[str]:
    """Return in words where two systems differ that have to be equal for a claim on both.

    The objective's own settings and those of the optimiser may differ: they belong to each system's recipe.

    Args:
        a: The trainings of one system, one for each seed.
        b: Those of the other.
    """
    if any(not recipe.is_recorded for recipe in (*a, *b)):
        found = ["settings, which not every bundle records: export the runs again"]
    elif a[0].data_sha256 != b[0].data_sha256:
        found = ["training data, whose pixels are not the same"]
    else:
        found = []
    for name, value in _facts():
        values_a, values_b = (list(dict.fromkeys(map(value, recipes))) for recipes in (a, b))
        if values_a != values_b or len(values_a) > 1:
            found.append(f"{name} {_joined(values_a)} and {_joined(values_b)}")
    return found


def unlike_the_lecture(recipe: Recipe) -> str:
    """Return in words what makes a `vae` another model than the lecture's VAE; "" if nothing does."""
    if recipe.settings is None:
        return "its bundle does not record its settings"
    changed = [
        f"{name} {_shown(recipe.settings.get(name, value))}"
        for name, value in LECTURE_VAE.items()
        if recipe.settings.get(name, value) != value
    ]
    return ", ".join(changed)


def _facts() -> list[tuple[str, Any]]:
    """Return the facts that have to agree: name, and how a recipe's value is read."""
    networks = [
        name
        for name, setting in config.SETTINGS.items()
        if setting.declaration.panel is Panel.NETWORKS and name != "latent_dim"
    ]

    def reader(name: str) -> Any:
        return lambda recipe: _shown((recipe.settings or {}).get(name, _ABSENT.get(name)))

    return [
        ("likelihood", lambda recipe: recipe.likelihood),
        ("latent dimensions", lambda recipe: str(recipe.latent_dim)),
        ("training images", lambda recipe: str(recipe.images)),
        ("steps", lambda recipe: _shown(recipe.steps)),
        ("epochs", lambda recipe: f"{recipe.epochs:g}"),
        ("share of the training that is done", lambda recipe: f"{recipe.share_done:.0%}"),
        ("precision", lambda recipe: recipe.precision),
        ("first weights", lambda recipe: recipe.weights_from),
        ("ends of the run", lambda recipe: recipe.ends),
        *((name, reader(name)) for name in (*networks, *_SHARED)),
    ]


def _shown(value: Any) -> str:
    return "not recorded" if value is None else plain(value)


def _joined(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{values[0]} … {values[-1]}"
