"""Flags of the command line, made from the declarations of the settings."""

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.config import SETTINGS
from convvae_trainer.settings.declaration import Panel, Setting, alternatives
from convvae_trainer.settings.objectives import OBJECTIVES
from convvae_trainer.settings.presets import PRESETS

__all__ = [
    "ConfigFile",
    "DataRoot",
    "Download",
    "Force",
    "Json",
    "MaxPixels",
    "OnError",
    "Preset",
    "RunDataRoot",
    "RunDevice",
    "RunMaxPixels",
    "RunOnError",
    "RunTestDataset",
    "RunValidationDataset",
    "check_new_file",
    "objectives_help",
    "setting_option",
    "with_setting_flags",
]

_OUTPUT = "Output"
_METAVARS = {int: "N", float: "X", tuple: "H[xW]", bool: ""}


def setting_option(name: str, *, default: str = "") -> Any:
    """Return the typer option of a setting: its help, the allowed values and the default.

    Args:
        name: The name of the setting.
        default: Words for the default of a command that does not take the setting's own.
    """
    setting = SETTINGS[name]
    return typer.Option(
        metavar=_METAVARS.get(setting.kind, name.rpartition("_")[2].upper()),
        help=_help(setting, default or setting.default_text),
        rich_help_panel=setting.declaration.panel,
        show_default=False,
    )


def with_setting_flags(command: Callable[..., None], *, without: Collection[str] = ()) -> Callable[..., None]:
    """Replace the parameter `**settings` of a command by an option for each setting that has a flag.

    The command receives None for a flag that is not given. The help shows keyword-only parameters last.
    Settings in `without` have no flag.
    """
    signature = inspect.signature(command)
    own = list(signature.parameters.values())
    parameters = [
        *(each for each in own if each.kind is each.POSITIONAL_OR_KEYWORD),
        *(
            _parameter(setting)
            for name, setting in SETTINGS.items()
            if setting.declaration.is_flag and name not in without
        ),
        *(each for each in own if each.kind is each.KEYWORD_ONLY),
    ]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def check_new_file(out: Path | None, *, force: bool) -> None:
    """Raise `BadConfig` if --out exists and may not be replaced."""
    if out is not None and out.is_file() and not force:
        raise BadConfig(f"--out: {out} exists: give --force to replace it, or another name")


def objectives_help() -> str:
    """Return a paragraph for each objective, to stand below the flags."""
    return "\n\n".join(["Objectives:", *(f"{name}: {row.help}" for name, row in OBJECTIVES.items())])


def _moved(part: str) -> Any:
    """Return the typer option for the new place of a run's test or validation data set."""
    return typer.Option(
        metavar="DATASET",
        help=f"Read the {part} data set of the run here, if it was moved.",
        rich_help_panel=Panel.DATA,
    )


def _parameter(setting: Setting) -> inspect.Parameter:
    # An image size stays a text, as in a file. Its own error message then covers both.
    kind = str if setting.kind is tuple else setting.kind
    annotated: Any = Annotated
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=annotated[kind | None, setting_option(setting.name)],
    )


def _help(setting: Setting, default: str) -> str:
    """Return the help of a flag: the setting's own, and in brackets the allowed values and the default."""
    facts = [] if setting.kind is bool else [setting.allowed]
    if setting.objectives:
        facts.append(f"only for {', '.join(setting.objectives)}")
    if default:
        facts.append(f"default: {'yes' if default == 'true' else 'no' if default == 'false' else default}")
    text = "; ".join(fact for fact in facts if fact)
    return f"{setting.declaration.help} ({text})" if text else setting.declaration.help


# The flags that several commands share. A command on a run that exists starts from the settings of the run.
DataRoot = Annotated[str | None, setting_option("data_root")]
MaxPixels = Annotated[int | None, setting_option("max_pixels")]
OnError = Annotated[str | None, setting_option("on_error")]
RunDataRoot = Annotated[str | None, setting_option("data_root", default="the folder of the run")]
RunMaxPixels = Annotated[int | None, setting_option("max_pixels", default="that of the run")]
RunOnError = Annotated[str | None, setting_option("on_error", default="as in the run")]
RunTestDataset = Annotated[str | None, _moved("test")]
RunValidationDataset = Annotated[str | None, _moved("validation")]
RunDevice = Annotated[str | None, setting_option("device", default="the device of the run")]
Download = Annotated[
    bool,
    typer.Option(
        "--download",
        metavar="",
        help="Download a torchvision set that is absent.",
        rich_help_panel=Panel.DATA,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Start from the settings of a preset: {alternatives(PRESETS)}. The settings file and flags"
        " override it.",
        rich_help_panel=Panel.RUN,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read settings from this TOML file, or from the config.json of a run. Flags override it.",
        rich_help_panel=Panel.RUN,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=_OUTPUT),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.", rich_help_panel=_OUTPUT)]
