"""The flags of `convvae-serve run` for its help and for completion, made from the settings."""

import inspect
import typing
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo

from convvae_service.settings.numbers import allowed_numbers, number_text, unit_of
from convvae_service.settings.serve import ServeSettings
from convvae_service.settings.table import GROUPS

__all__ = ["setting_parameters"]

_METAVARS = {"int": "N", "float": "X", "Path": "PATH"}
_OWN_METAVARS = {
    "address": "HOST:PORT",
    "metrics_address": "HOST:PORT",
    "serve": "MODEL=VERSION",
    "versions": "WORDS",
    "precision": "WORDS",
}


def setting_parameters() -> list[inspect.Parameter]:
    """Return a parameter with a typer option for each setting, all of them with the default None."""
    return [
        _parameter(name, ServeSettings.model_fields[name], section)
        for section, names in GROUPS.items()
        for name in names
    ]


def _parameter(name: str, field: FieldInfo, section: str) -> inspect.Parameter:
    kind = bool if field.annotation is bool else str
    flag = f"--{name.replace('_', '-')}"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        metavar=_metavar(name, field),
        help=f"{field.description}{_facts(name, field)}",
        show_default=False,
        rich_help_panel=section,
    )
    annotated: Any = Annotated
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotated[kind | None, option]
    )


def _metavar(name: str, field: FieldInfo) -> str:
    if name in _OWN_METAVARS:
        return _OWN_METAVARS[name]
    if choices := _choices(field):
        return "|".join(choices)
    names = [getattr(kind, "__name__", "") for kind in (field.annotation, *typing.get_args(field.annotation))]
    return next((_METAVARS[each] for each in names if each in _METAVARS), name.rpartition("_")[2].upper())


def _choices(field: FieldInfo) -> tuple[str, ...]:
    return typing.get_args(field.annotation) if typing.get_origin(field.annotation) is Literal else ()


def _facts(name: str, field: FieldInfo) -> str:
    """Return in brackets the allowed numbers and the default, with a space before, or "" without any."""
    default = "required" if field.is_required() else _default(field.default, unit_of(name))
    text = "; ".join(fact for fact in (allowed_numbers(name, field), default) if fact)
    return f" ({text})" if text else ""


def _default(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return f"default: {'yes' if value else 'no'}"
    if isinstance(value, tuple):
        value = " ".join(value)
    elif isinstance(value, int | float):
        value = number_text(value, unit)
    return "" if value in (None, "") else f"default: {value}"
