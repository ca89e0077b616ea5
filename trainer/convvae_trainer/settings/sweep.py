"""The settings of a study: objectives, seeds, and the values of the settings that it varies."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.config import MAX_SEED, SETTINGS
from convvae_trainer.settings.declaration import Panel, Setting, plain
from convvae_trainer.settings.layers import BadSetting
from convvae_trainer.settings.objectives import OBJECTIVES
from convvae_trainer.settings.values import typed_value

__all__ = ["DEFAULT_SEEDS", "parse_objectives", "parse_seeds", "parse_vary"]

DEFAULT_SEEDS = 3
MAX_SEEDS = 1000
# The settings that no study varies, and why.
_FIXED: Mapping[str, str] = {
    "seed": "--seeds gives the seeds",
    "objective": "--objectives gives the objectives",
    "minutes": "the speed of the machine would decide the number of steps: vary epochs",
    "early_stop_epochs": "runs would have different numbers of steps: vary epochs",
}
# A report compares models on the same test images.
_DATA_THAT_MAY_VARY = ("train_images", "binarize")
_COMPUTE_THAT_MAY_VARY = ("precision",)


def parse_objectives(text: str) -> tuple[str, ...]:
    """Return the objectives of a list such as `ae,vae`.

    Raises:
        BadConfig: The list is empty, or an objective is unknown or given twice.
    """
    names = _items("--objectives", text)
    for name in names:
        if name not in OBJECTIVES:
            near = difflib.get_close_matches(name, OBJECTIVES, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            known = ", ".join(OBJECTIVES)
            raise BadConfig(f"--objectives: unknown objective {name!r}: {hint}The objectives are {known}")
    return names


def parse_seeds(text: str, *, first: int = 0) -> tuple[int, ...]:
    """Return the seeds of a count such as `3`, or of a list such as `1,5,9`.

    Args:
        text: The count or the list.
        first: The seed that a count starts at.

    Raises:
        BadConfig: The text is neither, or a seed is out of range or given twice.
    """
    if "," not in text and text.strip():
        count = _whole_number("--seeds", text)
        if not 1 <= count <= MAX_SEEDS:
            raise BadConfig(
                f"--seeds is {count}: give a number of seeds from 1 to {MAX_SEEDS}, or a list such as 1,5,9"
            )
        return tuple(range(first, first + count))
    seeds = [_whole_number("--seeds", item) for item in _items("--seeds", text)]
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise BadConfig(f"--seeds: a seed is {seed}: it must be from 0 to {MAX_SEED}")
    _check_once("--seeds", seeds)
    return tuple(seeds)


def parse_vary(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values of each setting that a study varies, from texts such as `latent_dim=16,32`.

    Raises:
        BadConfig: A setting is unknown, given twice, or not one that a study varies; a list is empty, or a
            value is given twice or has the wrong type.
    """
    varied: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        given, equals, values = text.partition("=")
        name = given.strip().removeprefix("--").replace("-", "_")
        if not equals or not name:
            raise BadConfig(f"--vary {text}: give SETTING=A,B such as latent_dim=16,32")
        setting = _varied_setting(name)
        if name in varied:
            raise BadConfig(f"--vary: {name} is given twice: give all its values in one --vary")
        where = f"--vary {name}"
        typed = tuple(_value(setting, item) for item in _items(where, values))
        _check_once(where, typed)
        varied[name] = typed
    return varied


def _varied_setting(name: str) -> Setting:
    """Return the setting with this name, if a study may vary it."""
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "docs/training/settings.md lists them"
        raise BadConfig(f"--vary: {name} is not a setting of training: {hint}")
    setting = SETTINGS[name]
    reason = _FIXED.get(name, "")
    if setting.declaration.panel == Panel.DATA and name not in _DATA_THAT_MAY_VARY:
        reason = "all runs of a study need the same images"
    elif setting.declaration.panel in (Panel.COMPUTE, Panel.RUN) and name not in _COMPUTE_THAT_MAY_VARY:
        reason = "it does not change the model"
    if reason:
        raise BadConfig(f"--vary: {name} cannot be varied: {reason}")
    return setting


def _value(setting: Setting, text: str) -> Any:
    """Return a value from its text, in the setting's type; its range is checked with all settings."""
    where = f"--vary {setting.name}"
    if text == "auto":
        raise BadConfig(f"{where}: auto may mean any of the others: name the values to compare")
    if setting.kind is bool:
        if text not in ("true", "false"):
            raise BadConfig(f"{where}: {text!r} is not a value: use true or false")
        return text == "true"
    if setting.kind is int:
        return _whole_number(where, text)
    if setting.kind is float:
        try:
            return float(text)
        except ValueError:
            raise BadConfig(f"{where}: {text!r} is not a number") from None
    try:
        return typed_value(setting, text)
    except BadSetting as error:
        raise BadConfig(f"--vary: {error}") from None


def _items(where: str, text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list; none is empty, and none is there twice."""
    items = tuple(item.strip() for item in text.split(","))
    if not any(items):
        raise BadConfig(f"{where} is empty: give one value or more, with commas between them")
    if not all(items):
        raise BadConfig(f"{where} is {text!r}: a value is missing beside a comma")
    _check_once(where, items)
    return items


def _check_once(where: str, values: Sequence[Any]) -> None:
    for row, value in enumerate(values):
        if value in values[:row]:
            raise BadConfig(f"{where}: {plain(value)} is given twice")


def _whole_number(where: str, text: str) -> int:
    # int() also takes signs, spaces, underscores and other digits than these.
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadConfig(f"{where}: {text[:40]!r} is not a whole number from 0 on")
    return int(text)
