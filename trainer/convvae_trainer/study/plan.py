"""The plan of a study: its runs with all their settings, in the order in which they are trained."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convvae_service.bundle import BundleError, check_model_name
from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.declaration import plain
from convvae_trainer.settings.layers import Layer
from convvae_trainer.settings.objectives import OBJECTIVES, settings_by_user
from convvae_trainer.settings.sweep import DEFAULT_SEEDS, parse_objectives, parse_seeds
from convvae_trainer.study.matching import check_matched, check_shared, layer_for, shared_defaults

__all__ = ["PlannedRun", "StudyPlan", "make_plan"]

MAX_RUNS = 10_000
# A study has lists in place of these settings.
_OWN = ("objective", "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """A run of a study. `name` is that of its folder and of its model; `varied` has its varied settings."""

    name: str
    config: Config
    varied: Mapping[str, Any]

    @property
    def system(self) -> str:
        """The name without the seed: runs of one system differ in nothing else."""
        return self.name.rpartition("-seed")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """The objectives, seeds and varied settings of a study, its runs, and why they share which settings."""

    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    vary: Mapping[str, tuple[Any, ...]]
    runs: tuple[PlannedRun, ...]
    reasons: tuple[str, ...]

    @property
    def systems(self) -> list[str]:
        """The names of the systems, in the order of the runs."""
        return list(dict.fromkeys(run.system for run in self.runs))


def make_plan(
    layers: Sequence[Layer],
    *,
    objectives: str | None = None,
    seeds: str | None = None,
    vary: Mapping[str, tuple[Any, ...]],
) -> StudyPlan:
    """Plan the runs of a study.

    A setting that only some objectives use holds for those. Combinations of varied settings that make no
    difference to an objective are trained once.

    Args:
        layers: The settings of all runs; a later layer wins. `objective` and `seed` of a file or preset serve
            where `objectives` and `seeds` are None.
        objectives: A list such as `ae,vae`. None: all.
        seeds: A count such as `3`, or a list such as `1,5,9`. None: three seeds.
        vary: The values of each setting that is varied.

    Raises:
        BadConfig: A value is not allowed, or the runs cannot be matched. The message names the setting.
    """
    # auto is the default: it would let the needs of one objective and the images decide apart.
    layers = [_without(layer, ("likelihood",)) if _is_auto(layer) else layer for layer in layers]
    given = _given(layers)
    # An objective and a seed of a file serve as defaults; here their type and range are checked.
    start = config_from(Layer({"dataset": "-"}), *(_only(layer, _OWN) for layer in layers))
    layers = [_without(layer, _OWN) for layer in layers]
    if objectives is not None:
        chosen = parse_objectives(objectives)
    else:
        chosen = (start.objective,) if "objective" in given else tuple(OBJECTIVES)
    numbers = parse_seeds(str(DEFAULT_SEEDS) if seeds is None else seeds, first=start.seed)
    _check_size(len(chosen), len(numbers), *map(len, vary.values()))
    check_shared([given, *({name: value} for name, values in vary.items() for value in values)], chosen)
    shared = {
        name: found
        for name, found in shared_defaults(chosen).items()
        if name not in vary and name not in given and not (name == "epochs" and "minutes" in given)
    }
    layers = [Layer({name: value for name, (value, _) in shared.items()}), *layers]
    runs: dict[str, PlannedRun] = {}
    for seed, *values in itertools.product(numbers, *vary.values()):
        combination = dict(zip(vary, values, strict=True))
        configs = [_config(layers, each, chosen, combination, seed) for each in chosen]
        check_matched(configs)
        for config in configs:
            run = _planned(config, combination)
            runs.setdefault(run.name, run)
    reasons = [f"{name} {plain(value)} for all: {reason}" for name, (value, reason) in shared.items()]
    return StudyPlan(
        objectives=chosen,
        seeds=numbers,
        vary=vary,
        runs=tuple(runs.values()),
        reasons=tuple(reasons) if len(chosen) > 1 else (),
    )


def _given(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the values that the layers give."""
    return {name: value for layer in layers for name, value in layer.values.items() if value is not None}


def _is_auto(layer: Layer) -> bool:
    return layer.values.get("likelihood") == "auto"


def _only(layer: Layer, names: Collection[str]) -> Layer:
    return Layer({key: value for key, value in layer.values.items() if key in names}, layer.origin)


def _without(layer: Layer, names: Collection[str]) -> Layer:
    return Layer({key: value for key, value in layer.values.items() if key not in names}, layer.origin)


def _check_size(*counts: int) -> None:
    if (size := math.prod(counts)) > MAX_RUNS:
        raise BadConfig(
            f"the study would have {size} runs: give fewer seeds or values, for {MAX_RUNS} at most"
        )


def _config(
    layers: Sequence[Layer],
    objective: str,
    objectives: Sequence[str],
    combination: Mapping[str, Any],
    seed: int,
) -> Config:
    # Fixed: a message must not advise a flag of `fit` that a study does not have.
    return config_from(
        *(layer_for(layer, objective, objectives) for layer in layers),
        layer_for(Layer(combination, "--vary", is_fixed=True), objective, objectives),
        Layer({"objective": objective}, "--objectives", is_fixed=True),
        Layer({"seed": seed}, "--seeds", is_fixed=True),
    )


def _planned(config: Config, combination: Mapping[str, Any]) -> PlannedRun:
    users = settings_by_user()
    varied = {
        name: value
        for name, value in combination.items()
        if config.objective in users.get(name, (config.objective,))
    }
    words = [config.objective]
    words += [f"{name.replace('_', '-')}-{plain(value)}" for name, value in varied.items()]
    name = "-".join([*words, f"seed{config.seed}"])
    try:
        check_model_name(name)
    except BundleError:
        raise BadConfig(
            f"--vary: a run would be named {name}, and a name has at most 64 letters, digits, dots, dashes:"
            " vary fewer settings at a time"
        ) from None
    return PlannedRun(name=name, config=config, varied=varied)
