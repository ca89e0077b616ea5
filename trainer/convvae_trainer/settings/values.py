"""Values of settings: merged from layers, and brought to the type of each setting."""

import difflib
from collections.abc import Mapping
from typing import Any

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.declaration import Setting
from convvae_trainer.settings.image_size import parse_image_size
from convvae_trainer.settings.layers import BadSetting, Layer, SettingValue

__all__ = ["MergedValues", "typed_value"]


class MergedValues:
    """The values of several layers, each in its setting's type; a later layer wins.

    `values` has them by name, without the settings that no layer gives.
    """

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self.values: dict[str, Any] = {}
        self._settings = settings
        self._origins: dict[str, Layer] = {}

    def add(self, layer: Layer) -> None:
        """Add the values of a layer, except None.

        Raises:
            BadSetting: A name is unknown, or a value has the wrong type.
        """
        given = {name: value for name, value in layer.values.items() if value is not None}
        if "epochs" in given or "minutes" in given:
            self.values.pop("epochs", None)
            self.values.pop("minutes", None)
        for name, value in given.items():
            self._origins[name] = layer
            if name not in self._settings:
                raise _unknown(name, value, self._settings)
            self.values[name] = typed_value(self._settings[name], value)

    def located(self, error: BadSetting) -> BadConfig:
        """Return the error with the layers that its values come from."""
        return error.located(
            self._origins, {name: setting.default for name, setting in self._settings.items()}
        )


def _unknown(name: str, value: Any, settings: Mapping[str, Setting]) -> BadSetting:
    if isinstance(value, dict):
        hint = "put settings at the top of the file, not into a table"
    elif near := difflib.get_close_matches(name, settings, n=1, cutoff=0.5):
        hint = f"did you mean {near[0]}?"
    else:
        hint = "docs/training/settings.md lists them"
    return BadSetting(SettingValue(name, value), f" is not a setting: {hint}")


def typed_value(setting: Setting, value: Any) -> Any:
    """Return a value of TOML, JSON or a flag in the setting's own type.

    An integer serves as a float. An image size is a side, a text or a list of height and width.

    Raises:
        BadConfig: The value has another type.
    """
    if setting.kind is tuple:
        return _image_size(setting, value)
    if setting.kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            text = f" is out of range: it has {len(str(value))} digits"
            raise BadSetting(SettingValue(setting.name, value), text) from None
    if type(value) is not setting.kind:
        text = f" is {value!r}: it must be of type {setting.kind.__name__}"
        raise BadSetting(SettingValue(setting.name, value), text)
    return value


def _image_size(setting: Setting, value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int for side in value):
        return value[0], value[1]
    if isinstance(value, str) or type(value) is int:
        return parse_image_size(str(value), name=setting.name)
    text = f' is {value!r}: give a side, "HxW" or [height, width]'
    raise BadSetting(SettingValue(setting.name, value), text)
