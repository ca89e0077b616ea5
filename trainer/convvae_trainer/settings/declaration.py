"""The declaration of a setting: the facts that flags, checks and documentation are made from."""

import dataclasses
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from convvae_trainer.settings.objectives import OBJECTIVES, settings_by_user

__all__ = [
    "Declaration",
    "Panel",
    "Setting",
    "alternatives",
    "declared_settings",
    "plain",
    "required",
    "setting",
]

# The key of the declaration in the metadata of a field.
_KEY = "declaration"


class Panel(StrEnum):
    """The groups of settings in the help and in the documentation."""

    DATA = "Data"
    NETWORKS = "Networks"
    OBJECTIVE = "Objective"
    ADVERSARIAL = "Adversarial training"
    OPTIMISATION = "Optimisation"
    COMPUTE = "Compute"
    RUN = "Run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """The facts about a setting that its name, type and default do not say.

    Args:
        panel: The group in the help.
        help: One or two whole sentences, for the help and the documentation.
        bounds: The least and the greatest value; both are allowed.
        unit: The unit of the bounds, where the name does not say it.
        choices: The allowed strings, where the type is not a `Literal`.
        values: Words for the allowed values, where nothing else says them.
        default_text: Words for the default, where its value does not say it, such as None.
        is_flag: Whether the command line has a flag. A settings file may give every setting.
    """

    panel: Panel
    help: str
    bounds: tuple[float, float] | None = None
    unit: str = ""
    choices: Collection[str] = ()
    values: str = ""
    default_text: str = ""
    is_flag: bool = True


def setting(default: Any, panel: Panel, help: str, **facts: Any) -> Any:  # noqa: A002 - the name of the fact
    """Return a dataclass field with a default and a `Declaration` of these facts."""
    return dataclasses.field(default=default, metadata={_KEY: Declaration(panel=panel, help=help, **facts)})


def required(panel: Panel, help: str, **facts: Any) -> Any:  # noqa: A002 - the name of the fact
    """Return a dataclass field without a default, with a `Declaration` of these facts."""
    return dataclasses.field(metadata={_KEY: Declaration(panel=panel, help=help, **facts)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A setting with all that is known about it.

    Args:
        name: The name of the field, and the key in files.
        kind: The type of the value without None. A choice is a `str`.
        choices: The allowed strings; empty where any value of the type may be allowed.
        default: The default, or `dataclasses.MISSING`.
        declaration: The other facts.
    """

    name: str
    kind: Any
    choices: Collection[str]
    default: Any
    declaration: Declaration

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives that use the setting; empty where all of them do."""
        return settings_by_user().get(self.name, ())

    @property
    def allowed(self) -> str:
        """Words for the allowed values; empty where the type says enough."""
        if self.declaration.values:
            return self.declaration.values
        if self.choices:
            return alternatives(self.choices)
        if self.kind is bool:
            return "true or false"
        if self.declaration.bounds is None:
            return ""
        low, high = (plain(bound) for bound in self.declaration.bounds)
        return f"{low} to {high} {self.declaration.unit}".rstrip()

    @property
    def default_text(self) -> str:
        """Words for the default and for the objectives with another one; empty where there is none."""
        if self.default is dataclasses.MISSING:
            return ""
        by_value: dict[str, list[str]] = {}
        for objective, row in OBJECTIVES.items():
            if self.name in row.defaults:
                by_value.setdefault(plain(row.defaults[self.name]), []).append(objective)
        others = [f"{value} with {alternatives(names)}" for value, names in by_value.items()]
        return "; ".join([self.declaration.default_text or plain(self.default), *others])


def declared_settings(config: type) -> Mapping[str, Setting]:
    """Return the settings that a dataclass declares, by name and in its order.

    Args:
        config: A dataclass of fields that `setting` and `required` made.
    """
    found = {}
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        declaration: Declaration = field.metadata[_KEY]
        kind, choices = _kind(hints[field.name])
        found[field.name] = Setting(
            name=field.name,
            kind=kind,
            choices=declaration.choices or choices,
            default=field.default,
            declaration=declaration,
        )
    return types.MappingProxyType(found)


def alternatives(words: Collection[str]) -> str:
    """Return the words as `a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def plain(value: Any) -> str:
    """Return a value for people: a boolean as in files, a number without needless digits."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind(hint: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the type of a field without None, and the strings that a `Literal` allows."""
    if get_origin(hint) is Literal:
        return str, get_args(hint)
    if get_origin(hint) in (types.UnionType, Union):
        (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
    return get_origin(hint) or hint, ()
