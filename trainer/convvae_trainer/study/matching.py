"""The settings that the runs of a study share, so that only what is compared differs between them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.config import DEFAULT_EPOCHS, SETTINGS, Config
from convvae_trainer.settings.declaration import alternatives, plain
from convvae_trainer.settings.layers import Layer
from convvae_trainer.settings.objectives import OBJECTIVES, ObjectiveRow, settings_by_user

__all__ = ["check_matched", "check_shared", "layer_for", "shared_defaults"]

# An objective may have a default of its own for these: they decide how well it is trained, not on what.
OWN_DEFAULTS = frozenset({"learning_rate"})
# Not every objective uses these, but runs with different values have other pixels, likelihoods or steps.
SHARED = ("sigma", "binarize", "early_stop_epochs")
# Settings with which no two runs have equal numbers of steps, and what to give instead.
_UNEQUAL_STEPS = {
    "minutes": "time would decide the number of steps: give --epochs instead",
    "early_stop_epochs": "each run would stop at a step of its own: leave it out, and give --epochs",
}


def shared_defaults(objectives: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """Return the defaults that all runs share: (value, reason) by the setting's name.

    The likelihood is the one that an objective needs. Of other defaults that objectives have of their own,
    the largest one holds for all.

    Raises:
        BadConfig: Two objectives need different values of a setting.
    """
    shared = {}
    for name in _names_of_defaults(objectives):
        needed = {each: row.needs[name] for each, row in _rows(objectives) if name in row.needs}
        if len(set(needed.values())) > 1:
            words = ", ".join(f"{each} needs {plain(value)}" for each, value in needed.items())
            raise BadConfig(f"--objectives: runs cannot be matched: of {name}, {words}")
        if needed:
            value = next(iter(needed.values()))
            reason = f"{_and(list(needed))} {'needs' if len(needed) == 1 else 'need'} it"
        else:
            values = {each: _default(each, name) for each in objectives}
            value = max(values.values())
            reason = f"the default of {_and([each for each in objectives if values[each] == value])}"
        shared[name] = value, reason
    return shared


def layer_for(layer: Layer, objective: str, objectives: Sequence[str]) -> Layer:
    """Return a layer without the settings that this objective does not use, but another of the study does."""
    users = settings_by_user()
    used = {
        name: value
        for name, value in layer.values.items()
        if objective in users.get(name, objectives) or not set(objectives) & set(users[name])
    }
    return Layer(used, layer.origin, layer.is_fixed)


def check_shared(values: Iterable[Mapping[str, Any]], objectives: Sequence[str]) -> None:
    """Check that no setting keeps the runs from having the same pixels, likelihood and number of steps.

    Args:
        values: The values that are given, by the setting's name; None counts as not given.
        objectives: The objectives of the study.

    Raises:
        BadConfig: A setting does. The message names it.
    """
    for layer in values:
        for name in SHARED:
            users = settings_by_user()[name]
            others = [each for each in objectives if each not in users]
            if others and layer.get(name) not in (None, SETTINGS[name].default):
                raise BadConfig(
                    f"runs cannot be matched: {name}={_text(layer[name])} is not used by {_and(others)}:"
                    f" leave it out, or give --objectives {','.join(users)}"
                )


def check_matched(configs: Sequence[Config]) -> None:
    """Check that runs which differ only in their objective have the same data, networks and steps.

    Raises:
        BadConfig: They have not. The message names the first setting that differs.
    """
    some = settings_by_user()
    first = configs[0]
    for config in configs:
        for name, reason in _UNEQUAL_STEPS.items():
            if (value := getattr(config, name)) is not None:
                raise BadConfig(f"runs cannot be matched: {name} is {_text(value)}, and {reason}")
        for name in SETTINGS:
            own, other = getattr(first, name), getattr(config, name)
            if name in OWN_DEFAULTS or name == "objective" or (name in some and name not in SHARED):
                continue
            if own != other:
                raise BadConfig(
                    f"runs cannot be matched: {name} is {_text(own)} for {first.objective}, and"
                    f" {_text(other)} for {config.objective}: give {SETTINGS[name].flag}"
                )


def _rows(objectives: Sequence[str]) -> Iterable[tuple[str, ObjectiveRow]]:
    return ((each, OBJECTIVES[each]) for each in objectives)


def _names_of_defaults(objectives: Sequence[str]) -> list[str]:
    """Return the settings of all objectives for which one of these has a default or a need of its own."""
    some = settings_by_user()
    names = dict.fromkeys(name for _, row in _rows(objectives) for name in (*row.needs, *row.defaults))
    return [name for name in names if name not in OWN_DEFAULTS and name not in some]


def _default(objective: str, name: str) -> Any:
    default = DEFAULT_EPOCHS if name == "epochs" else SETTINGS[name].default
    return OBJECTIVES[objective].defaults.get(name, default)


def _and(objectives: Sequence[str]) -> str:
    return alternatives(objectives).replace(" or ", " and ")


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else plain(value)
