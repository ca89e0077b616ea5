"""The settings of one start of the server, loaded from flags, the environment and a TOML file."""

import argparse
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

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
    ENV_PREFIX,
    refuse_unknown_variables,
    suggestion,
)
from convvae_service.settings.serve import ServeSettings

__all__ = ["load_settings"]

_METAVARS = {"Path": "PATH", "str": "TEXT", "tuple[str,...]": "WORD", "int": "N", "float": "X"}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of the settings are."""

    def error(self, message: str) -> NoReturn:
        raise StartupError(f"{message}; convvae-serve run --help lists the options")


def load_settings(arguments: Sequence[str] = ()) -> ServeSettings:
    """Load the settings from command-line `arguments`, the environment and the file that one of them names.

    Raises:
        StartupError: A flag or a key is unknown, or a value is refused. The message names each.
        SystemExit: The arguments contain `--help`.
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
        raise StartupError("; ".join(_describe(item) for item in error.errors())) from None
    except SettingsError as error:
        raise StartupError(str(error)) from None


def _flags(settings: type[ServeSettings], arguments: Sequence[str]) -> CliSettingsSource[ServeSettings]:
    parser = _Parser(
        prog="convvae-serve run",
        allow_abbrev=False,
        description="Serve the models of a repository over gRPC.",
        epilog=f"Each flag is also an environment variable, such as {ENV_PREFIX}MAX_BATCH_ROWS,"
        " and a key of the --config file, such as max_batch_rows.",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
    return CliSettingsSource(
        settings, root_parser=parser, cli_parse_args=list(arguments), add_argument_method=_add_flag
    )


def _add_flag(parser: argparse.ArgumentParser, *names: str, **options: Any) -> argparse.Action:
    """Add a flag of pydantic-settings, with words in place of Python's types and values in its help."""
    if "metavar" in options:
        options["metavar"] = _METAVARS.get(options["metavar"], options["metavar"])
    options["help"] = re.sub(r" \(default: (None|\(\))\)$", "", options["help"])
    options["help"] = re.sub(r"\(default: \('(.*)',\)\)$", r"(default: \1)", options["help"])
    return parser.add_argument(*names, **options)


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
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            # The file is not read a second time: it may be a pipe.
            return (init_settings, env_settings, InitSettingsSource(settings_cls, keys))

    return SettingsWithFile


def _describe(item: Any) -> str:
    """Return one error of pydantic as a message that names the flag."""
    key = ".".join(str(part) for part in item["loc"]).replace("_", "-")
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"--{key} is required"
    return f"--{key}: {message}" if key else message
