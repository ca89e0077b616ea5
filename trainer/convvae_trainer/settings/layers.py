"""The layers that settings come from, and errors that name the flag, file or preset of a value."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convvae_trainer.errors import BadConfig

__all__ = ["FLAGS", "BadSetting", "Layer", "SettingValue", "read_settings"]

FLAGS = "flags"


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of settings that come from one place.

    Args:
        values: The values by the setting's name; None counts as not given.
        origin: The name of the place in messages: `FLAGS`, a file or a preset. It is empty for a caller in
            Python.
        is_fixed: Whether nobody can change the values, as in the settings of a run that exists.
    """

    values: Mapping[str, Any]
    origin: str = ""
    is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class SettingValue:
    """A setting and its value, as a part of a message."""

    name: str
    value: Any


class BadSetting(BadConfig):
    """A value is not allowed, or two values contradict each other.

    Args:
        parts: The message: texts, and between them the settings. A single setting is shown by its name,
            several with their values.
    """

    def __init__(self, *parts: str | SettingValue) -> None:
        super().__init__(_render(parts, None))
        self.parts = parts

    def located(self, layers: Mapping[str, Layer], defaults: Mapping[str, Any]) -> BadConfig:
        """Return the error with the origin of each value, and with a remedy where flags contradict a layer.

        Args:
            layers: The layer that a value comes from, by the setting's name; defaults have none.
            defaults: The default of each setting, by name.
        """
        found = [part for part in self.parts if isinstance(part, SettingValue)]
        text = _render(self.parts, layers)
        origins = {layers[setting.name].origin if setting.name in layers else "" for setting in found}
        if len(origins) > 1:
            return BadConfig(text + _remedy(found, layers, defaults))
        origin = origins.pop()
        return BadConfig(text if origin in ("", FLAGS) else f"{origin}: {_render(self.parts, None)}")


def read_settings(path: Path) -> Layer:
    """Read the settings of a TOML file, or of the config.json of a run.

    Raises:
        BadConfig: The file cannot be read, or is neither TOML nor a JSON object.
    """
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except OSError as error:
        raise BadConfig(f"config file {str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"config file {str(path)!r} is not valid {kind}: {error}") from None
    if not isinstance(values, dict):
        raise BadConfig(f"config file {str(path)!r} is not a JSON object")
    return Layer(values, str(path))


def _render(parts: tuple[str | SettingValue, ...], layers: Mapping[str, Layer] | None) -> str:
    is_single = sum(isinstance(part, SettingValue) for part in parts) == 1
    shown = _name if is_single else _name_and_value
    return "".join(part if isinstance(part, str) else shown(part, layers) for part in parts)


def _name(setting: SettingValue, layers: Mapping[str, Layer] | None) -> str:
    if layers is not None and _is_flag(setting, layers):
        return _flag_name(setting)
    return setting.name if setting.name.isprintable() else repr(setting.name)


def _name_and_value(setting: SettingValue, layers: Mapping[str, Layer] | None) -> str:
    plain = f"{setting.name}={setting.value}"
    if layers is None:
        return plain
    if setting.name not in layers:
        return f"{plain} (the default)"
    if _is_flag(setting, layers):
        return _flag(setting.name, setting.value)
    origin = layers[setting.name].origin
    return f"{plain} ({origin})" if origin else plain


def _remedy(settings: list[SettingValue], layers: Mapping[str, Layer], defaults: Mapping[str, Any]) -> str:
    """Return the flag to add or to omit where a flag contradicts a layer below it; else nothing."""
    flags = [setting for setting in settings if _is_flag(setting, layers)]
    below = [setting for setting in settings if setting not in flags and setting.name in layers]
    if not flags or not below:
        return ""
    first = settings[0]
    remedies = []
    if first in below and _can_be_reset(first, layers, defaults):
        remedies.append(f"add {_flag(first.name, defaults[first.name])}")
    remedies.append(f"omit {_flag_name(flags[0])}")
    return f"; {' or '.join(remedies)}"


def _can_be_reset(setting: SettingValue, layers: Mapping[str, Layer], defaults: Mapping[str, Any]) -> bool:
    """Return whether a flag can give the setting its default again."""
    layer = layers[setting.name]
    return bool(layer.origin) and not layer.is_fixed and defaults[setting.name] is not None


def _is_flag(setting: SettingValue, layers: Mapping[str, Layer]) -> bool:
    return setting.name in layers and layers[setting.name].origin == FLAGS


def _flag_name(setting: SettingValue) -> str:
    return "--" + setting.name.replace("_", "-")


def _flag(name: str, value: Any) -> str:
    """Return the flag that gives a setting this value."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{dashed}" if value else f"--no-{dashed}"
    return f"--{dashed} {value:g}" if isinstance(value, float) else f"--{dashed} {value}"
