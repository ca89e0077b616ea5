"""Settings as they are given, and messages that name the flag, file or preset that a value comes from."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convvae_trainer.errors import BadConfig

__all__ = ["FLAGS", "BadSetting", "Layer", "Setting", "read_settings"]

FLAGS = "flags"


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of settings that come from one place, None being "not given".

    `origin` is what messages call the place: `FLAGS`, a file, a preset, or "" for nothing. What `is_fixed`
    cannot be changed, as the settings of a run that exists.
    """

    values: Mapping[str, Any]
    origin: str = ""
    is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in a message; the message is about one, or about several that do not go together."""

    name: str
    value: Any


class BadSetting(BadConfig):
    """A value is out of range or does not fit another one.

    Args:
        parts: The message: words, and the settings that it is about in their places. One alone is named, of
            several each is named with its value.
    """

    def __init__(self, *parts: str | Setting) -> None:
        super().__init__(_rendered(parts, None))
        self.parts = parts

    def located(self, layers: Mapping[str, Layer], defaults: Mapping[str, Any]) -> BadConfig:
        """Return the error with where each value comes from, and what to do about a preset or file.

        Args:
            layers: By the setting's name, the layer that its value comes from; of a default there is none.
            defaults: By the setting's name.
        """
        found = [part for part in self.parts if isinstance(part, Setting)]
        text = _rendered(self.parts, layers)
        origins = {layers[setting.name].origin if setting.name in layers else "" for setting in found}
        if len(origins) > 1:
            return BadConfig(text + _remedy(found, layers, defaults))
        origin = origins.pop()
        return BadConfig(text if origin in ("", FLAGS) else f"{origin}: {_rendered(self.parts, None)}")


def _flag(name: str, value: Any) -> str:
    """Return the flag that gives a setting this value."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{dashed}" if value else f"--no-{dashed}"
    return f"--{dashed} {value:g}" if isinstance(value, float) else f"--{dashed} {value}"


def read_settings(path: Path) -> Layer:
    """Return the settings of a TOML file, or of a run's config.json; messages name the file.

    Raises:
        BadConfig: The file cannot be read, or is neither.
    """
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except OSError as error:
        raise BadConfig(f"config file {str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"config file {str(path)!r} is no {kind}: {error}") from None
    if not isinstance(values, dict):
        raise BadConfig(f"config file {str(path)!r} is no JSON object")
    return Layer(values, str(path))


def _rendered(parts: tuple[str | Setting, ...], layers: Mapping[str, Layer] | None) -> str:
    is_alone = sum(isinstance(part, Setting) for part in parts) == 1
    return "".join(
        part if isinstance(part, str) else _subject(part, layers) if is_alone else _stated(part, layers)
        for part in parts
    )


def _subject(setting: Setting, layers: Mapping[str, Layer] | None) -> str:
    is_flag = layers is not None and setting.name in layers and layers[setting.name].origin == FLAGS
    if is_flag:
        return "--" + setting.name.replace("_", "-")
    return setting.name if setting.name.isprintable() else repr(setting.name)


def _stated(setting: Setting, layers: Mapping[str, Layer] | None) -> str:
    plain = f"{setting.name}={setting.value}"
    if layers is None:
        return plain
    if setting.name not in layers:
        return f"{plain} (the default)"
    origin = layers[setting.name].origin
    if origin == FLAGS:
        return _flag(setting.name, setting.value)
    return f"{plain} ({origin})" if origin else plain


def _remedy(settings: list[Setting], layers: Mapping[str, Layer], defaults: Mapping[str, Any]) -> str:
    """Return what to add or to leave out where a flag contradicts what it was laid over."""
    flags = [setting for setting in settings if _is_of_flags(setting, layers)]
    below = [setting for setting in settings if setting not in flags and setting.name in layers]
    if not flags or not below:
        return ""
    ways = [
        f"add {_flag(setting.name, defaults[setting.name])}"
        for setting in below
        if setting == settings[0]
        and layers[setting.name].origin
        and not layers[setting.name].is_fixed
        and defaults[setting.name] is not None
    ]
    ways.append(f"leave --{flags[0].name.replace('_', '-')} out")
    return f"; {' or '.join(ways)}"


def _is_of_flags(setting: Setting, layers: Mapping[str, Layer]) -> bool:
    return setting.name in layers and layers[setting.name].origin == FLAGS
