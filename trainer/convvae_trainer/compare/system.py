"""A system: models of one comparison that were trained alike, but for the seed."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convvae_service.bundle import Manifest
from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.compare.recipe import LECTURE_NAMES, Recipe
from convvae_trainer.compare.spread import Spread
from convvae_trainer.settings.declaration import plain

__all__ = ["System", "grouped", "make_systems"]


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """Models that differ in the seed alone. The first one is shown in pictures."""

    name: str
    members: tuple[ModelReport, ...]

    @property
    def first(self) -> ModelReport:
        """The model that stands for the system in pictures."""
        return self.members[0]

    @property
    def objective(self) -> str:
        """The objective of all members."""
        return self.first.objective

    @property
    def recipes(self) -> list[Recipe]:
        """The trainings of the members."""
        return [Recipe.of(member.published.manifest) for member in self.members]

    @property
    def seeds(self) -> list[int]:
        """The members' seeds."""
        return [member.published.manifest.training.seed for member in self.members]

    @property
    def note(self) -> str:
        """The model that is shown, and of how many seeds it is one."""
        count = len(self.members)
        return self.first.label if count == 1 else f"{self.first.label}, first of {count} seeds"

    def spread(self, value: Callable[[ModelReport], float | None]) -> Spread | None:
        """Return a figure over the seeds, or None if a member does not have it."""
        values = [value(member) for member in self.members]
        known = tuple(float(each) for each in values if each is not None)
        return Spread(known) if len(known) == len(values) else None

    def to_json_object(self) -> dict[str, Any]:
        """Return the system's name, its members and its recorded settings."""
        recipe = self.recipes[0]
        return {
            "name": self.name,
            "objective": self.objective,
            "models": [member.label for member in self.members],
            "seeds": self.seeds,
            "settings": None if recipe.settings is None else dict(recipe.settings),
        }


def grouped(manifests: Sequence[Manifest]) -> list[list[int]]:
    """Return the rows of the manifests that form each system, in the order of their first members.

    Two models with the same seed, or with the same weights, are no two seeds: the second one begins a system
    of its own. So does a model whose bundle does not record its settings.
    """
    groups: list[list[int]] = []
    recipes = [Recipe.of(manifest) for manifest in manifests]
    for row, manifest in enumerate(manifests):
        for group in groups:
            is_new = all(_is_other_seed(manifest, manifests[other]) for other in group)
            if is_new and recipes[row].is_like(recipes[group[0]]):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _is_other_seed(a: Manifest, b: Manifest) -> bool:
    weights = [{graph.sha256 for graph in manifest.graphs} for manifest in (a, b)]
    return a.training.seed != b.training.seed and weights[0].isdisjoint(weights[1])


def make_systems(models: Sequence[ModelReport]) -> list[System]:
    """Return the systems that the models form, with the names that the lecture gives them.

    Systems of one objective are told apart by the settings that differ, or else by the name of a model.
    """
    groups = [tuple(models[row] for row in rows) for rows in grouped([m.published.manifest for m in models])]
    heads = [group[0] for group in groups]
    bases = [LECTURE_NAMES.get(head.objective, head.objective) for head in heads]
    names = []
    for base, head in zip(bases, heads, strict=True):
        alike = [other for other, name in zip(heads, bases, strict=True) if name == base]
        names.append(f"{base}, {words}" if (words := _setting_apart(head, alike)) else base)
    counts = Counter(names)
    return [
        System(name=name if counts[name] == 1 else f"{base} ({group[0].label})", members=group)
        for name, base, group in zip(names, bases, groups, strict=True)
    ]


def _setting_apart(head: ModelReport, alike: Sequence[ModelReport]) -> str:
    """Return the settings of `head` in which the systems of its objective differ, such as "latent_dim 16"."""
    settings = [Recipe.of(model.published.manifest).settings for model in alike]
    own = Recipe.of(head.published.manifest).settings
    if own is None or any(each is None for each in settings):
        return ""
    return ", ".join(
        f"{name} {'none' if value is None else plain(value)}"
        for name, value in own.items()
        if any(each is not None and each.get(name) != value for each in settings)
    )
