"""The settings of a run from all their places: what is given, a file, a preset, and what is below."""

from pathlib import Path

from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.layers import Layer, read_settings
from convvae_trainer.settings.presets import preset_settings

__all__ = ["run_settings"]


def run_settings(
    given: Layer, *, preset: str | None, file: Path | None, below: Layer | None = None
) -> Config:
    """Return the settings of a run. What is given overrides the file, and the file overrides the preset.

    Args:
        given: The settings of the caller.
        preset: The name of a preset.
        file: A TOML file, or the config.json of a run.
        below: Settings that all others override: those of the run to resume, or of the weights to start from.

    Raises:
        BadConfig: A setting is unknown, not allowed or contradicts another one.
    """
    layers = [
        Layer({}) if below is None else below,
        Layer(preset_settings(preset), f"preset {preset}"),
        Layer({}) if file is None else read_settings(file),
        given,
    ]
    return config_from(*layers)
