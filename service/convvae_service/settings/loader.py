"""The settings of one start of the server, loaded from flags, the environment and a TOML file."""

import argparse
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
)

from convvae_service.errors import StartupError
from convvae_service.settings.environment import (
    CONFIG_VARIABLE,
    refuse_unknown_variables,
    suggestion,
)
from convvae_service.settings.mistakes import describe_setting, describe_words
from convvae_service.settings.serve import ServeSettings

__all__ = ["load_settings"]

_FLAGS = ["--config", *(f"--{name.replace('_', '-')}" for name in ServeSettings.model_fields)]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of the settings are."""

    def error(self, message: str) -> NoReturn:
        raise StartupError(describe_words(message, _FLAGS))


def load_settings(arguments: Sequence[str] = ()) -> ServeSettings:
    """Load the settings from command-line `arguments`, the environment and the file that one of them names.

    Raises:
        StartupError: A flag or a key is unknown, or a value is refused. The message names each.
    """
    refuse_unknown_variables(ServeSettings.model_fields)
    config_flag = _Parser(add_help=False, allow_abbrev=False)
    config_flag.add_argument("--config")
    known, rest = config_flag.parse_known_args(arguments)
    file = known.config or os.environ.get(CONFIG_VARIABLE)
    settings = _settings_with_file(Path(file)) if file else ServeSettings
    try:
        return settings(_cli_settings_source=_flags(settings, rest))  # type: ignore[call-arg]
    except ValidationError as error:
        raise StartupError("; ".join(describe_setting(item) for item in error.errors())) from None
    except SettingsError as error:
        raise StartupError(str(error)) from None


def _flags(settings: type[ServeSettings], arguments: Sequence[str]) -> CliSettingsSource[ServeSettings]:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    return CliSettingsSource(settings, root_parser=parser, cli_parse_args=list(arguments))


def _settings_with_file(path: Path) -> type[ServeSettings]:
    """Return the settings class that also reads the TOML file at `path`."""
    try:
        with path.open("rb") as file:
            keys = tomllib.load(file)
    except OSError as error:
        raise StartupError(f"config file {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StartupError(f"config file {str(path)!r} is not TOML: {error}") from None
    for key in keys:
        if key not in ServeSettings.model_fields:
            close = suggestion(key, ServeSettings.model_fields)
            hint = f": did you mean {close}?" if close else ""
            raise StartupError(f"config file {str(path)!r} has the unknown key {key!r}{hint}")

    class SettingsWithFile(ServeSettings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            *sources: PydanticBaseSettingsSource,
            **named: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            others = super().settings_customise_sources(settings_cls, *sources, **named)
            # The file is not read a second time: it may be a pipe.
            return (*others, InitSettingsSource(settings_cls, keys))

    return SettingsWithFile
