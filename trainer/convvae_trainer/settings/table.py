"""The table of settings in the documentation.

    python -m convvae_trainer.settings.table docs/training/settings.md

writes it into a page again, between two comments.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from convvae.program.settings_page import write_tables
from convvae_trainer.settings.config import SETTINGS
from convvae_trainer.settings.declaration import Panel, Setting

__all__ = ["settings_table"]


def settings_table() -> str:
    """Return a Markdown table for each panel of settings, under a heading of its own."""
    panels = [
        (panel, [each for each in SETTINGS.values() if each.declaration.panel == panel]) for panel in Panel
    ]
    return "\n".join(f"### {panel}\n\n{_table(settings)}" for panel, settings in panels if settings)


def _table(settings: Iterable[Setting]) -> str:
    rows = ["| Setting | Values | Default | Meaning |", "|---|---|---|---|", *map(_row, settings)]
    return "".join(f"{row}\n" for row in rows)


def _row(setting: Setting) -> str:
    texts = [setting.declaration.help]
    if setting.objectives:
        texts.append(f"Objectives: {', '.join(setting.objectives)}.")
    if not setting.declaration.is_flag:
        texts.append("Only in files.")
    return f"| `{setting.name}` | {setting.allowed} | {setting.default_text} | {' '.join(texts)} |"


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]), settings_table())
