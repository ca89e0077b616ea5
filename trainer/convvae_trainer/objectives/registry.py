"""The class of an objective, by its name in the settings."""

import importlib

from convvae_trainer.objectives.base import Objective
from convvae_trainer.settings.objectives import OBJECTIVES

__all__ = ["objective_class"]


def objective_class(name: str) -> type[Objective]:
    """Return the class that the table of objectives gives for `name`."""
    module, _, attribute = OBJECTIVES[name].class_path.partition(":")
    loaded: type[Objective] = getattr(importlib.import_module(module), attribute)
    return loaded
