"""The settings as arguments by name, in the signature that `help` and notebooks show."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from convvae_trainer.settings.config import SETTINGS
from convvae_trainer.settings.declaration import Panel

__all__ = ["DATA_SETTINGS", "RUN_SETTINGS", "with_settings"]

F = TypeVar("F", bound=Callable[..., Any])

# The data set itself is an argument of its own.
RUN_SETTINGS = tuple(name for name in SETTINGS if name != "dataset")
# Images are drawn to 0 and 1 in training and evaluation, not when they are loaded.
DATA_SETTINGS = tuple(
    name
    for name in RUN_SETTINGS
    if SETTINGS[name].declaration.panel is Panel.DATA and name not in ("binarize", "fingerprints")
)


def with_settings(*names: str) -> Callable[[F], F]:
    """Show the settings of these names in place of the parameter `**settings` of a function.

    None means that a setting is not given.
    """

    def shown(function: F) -> F:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SETTINGS[name].kind | None
            )
            for name in names
        ]
        function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        return function

    return shown
