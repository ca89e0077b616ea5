"""The table of settings in the documentation.

    python -m convvae_trainer.settings.table docs/training/settings.md

writes it into a page again, between two comments.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from convvae_trainer.settings.config import SETTINGS
from convvae_trainer.settings.declaration import Panel, Setting

__all__ = ["BEGIN", "END", "settings_table", "with_table"]

BEGIN = "<!-- settings:begin -->"
END = "<!-- settings:end -->"


def settings_table() -> str:
    """Return a Markdown table for each panel of settings, under a heading of its own."""
    panels = [
        (panel, [each for each in SETTINGS.values() if each.declaration.panel == panel]) for panel in Panel
    ]
    return "\n".join(f"### {panel}\n\n{_table(settings)}" for panel, settings in panels if settings)


def with_table(page: str) -> str:
    """Return the page with the table between its two comments.

    Raises:
        ValueError: The page lacks one of the comments.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the comments {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{settings_table()}{END}{after}"


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
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
