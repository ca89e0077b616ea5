"""The settings of a run from several layers, such as a file and flags, and as JSON types."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.config import SETTINGS, Config
from convvae_trainer.settings.layers import BadSetting, Layer
from convvae_trainer.settings.objectives import OBJECTIVES
from convvae_trainer.settings.values import MergedValues

__all__ = ["config_from", "to_json_object"]


def config_from(*layers: Mapping[str, Any] | Layer) -> Config:
    """Build a `Config` from several layers; a later layer wins, and a value of None counts as not given.

    `epochs` of a later layer also replaces `minutes` of an earlier one, and the reverse.

    Raises:
        BadConfig: A name is unknown, a value has the wrong type or is not allowed, or `dataset` is missing.
            The message names the layer that the value comes from.
    """
    merged = MergedValues(SETTINGS)
    try:
        for layer in layers:
            merged.add(layer if isinstance(layer, Layer) else Layer(layer))
        if "dataset" not in merged.values:
            raise BadConfig("dataset is not set: name a data set (such as digits), a folder or a file")
        row = OBJECTIVES.get(merged.values.get("objective", ""))
        return Config(**{**(row.defaults if row else {}), **merged.values})
    except BadSetting as error:
        raise merged.located(error) from None


def to_json_object(config: Config) -> dict[str, Any]:
    """Return the settings as JSON types, which `config_from` reads back."""
    values = dataclasses.asdict(config)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
