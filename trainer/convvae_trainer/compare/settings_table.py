"""The report's table of the settings in which its systems differ."""

from collections.abc import Sequence
from html import escape
from typing import Any

from convvae_trainer.compare.system import System
from convvae_trainer.settings.declaration import plain

__all__ = ["settings_table"]

_ABSENT = object()


def settings_table(systems: Sequence[System]) -> str:
    """Return the table as HTML; "" if there is nothing to compare.

    There is a line for each setting that differs between systems that have it.
    """
    recorded = [system for system in systems if system.recipes[0].is_recorded]
    lacking = [system.name for system in systems if not system.recipes[0].is_recorded]
    note = ""
    if lacking:
        note = (
            f"<p class=note>Settings are not recorded by {escape(', '.join(lacking))}: export the runs"
            " again to compare them.</p>"
        )
    if len(recorded) < 2:
        return note
    settings = [system.recipes[0].settings or {} for system in recorded]
    names = dict.fromkeys(name for each in settings for name in each if name != "objective")
    lines, has_gap = [], False
    for name in names:
        values = [each.get(name, _ABSENT) for each in settings]
        known = [value for value in values if value is not _ABSENT]
        if any(value != known[0] for value in known):
            has_gap = has_gap or len(known) < len(values)
            cells = "".join(f"<td>{_shown(value)}</td>" for value in values)
            lines.append(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>")
    if not lines:
        return note
    heads = "".join(f"<th scope=col>{escape(system.name)}</th>" for system in recorded)
    return (
        "<h3>Settings that differ</h3>\n"
        f'<div class="wide"><table>\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
        + ("\n<p class=note>&ndash;: the objective has no such setting.</p>" if has_gap else "")
        + note
    )


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "&ndash;"
    return "none" if value is None else escape(plain(value))
