"""The settings that a bundle records: all that decide on the weights, without the seed and without paths."""

from typing import Any

from convvae_trainer.settings.assembly import to_json_object
from convvae_trainer.settings.config import SETTINGS, Config
from convvae_trainer.settings.declaration import Panel, Setting

__all__ = ["recorded_settings"]

# Device, threads and log files change the speed of a run, and rounding at most.
_PANELS = (Panel.DATA, Panel.NETWORKS, Panel.OBJECTIVE, Panel.ADVERSARIAL, Panel.OPTIMISATION)
# The manifest has the seed. The limits on files decide which images are read; a hash of the images says that.
_LEFT_OUT = ("seed", "max_pixels", "on_error")


def recorded_settings(config: Config) -> dict[str, Any]:
    """Return the settings that decide on the weights, as JSON types, by name.

    Settings that the objective does not use are left out. Paths are too: a bundle names no folder of the
    machine that made it.
    """
    # `epochs` may be a default, and then is None.
    values = {**to_json_object(config), "epochs": config.total_epochs}
    return {
        name: values[name] for name, setting in SETTINGS.items() if _is_recorded(setting, config.objective)
    }


def _is_recorded(setting: Setting, objective: str) -> bool:
    panel = setting.declaration.panel
    is_path = panel is Panel.DATA and setting.kind is str and not setting.choices
    is_used = not setting.objectives or objective in setting.objectives
    return panel in _PANELS and is_used and not is_path and setting.name not in _LEFT_OUT
