"""The help of a program and of each command, as plain text that fits a terminal of 80 columns."""

import inspect
import shutil
import textwrap
from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from convvae.program.number_range import number_range

__all__ = ["help_page", "param_range"]

_EXAMPLE = "Example: "
_MAX_WIDTH = 100
_MIN_WIDTH = 40
# The widest first column of a list; a longer entry has a line of its own.
_FIRST_COLUMN = 26


def help_page(command: Any, ctx: Any, *, exit_codes: dict[str, str]) -> str:
    """Return the help of a command: usage, purpose, example, options by panel, commands, exit codes.

    A paragraph of the command's description that begins with `Example: ` is a command line.

    Args:
        command: The command of typer.
        ctx: Its context.
        exit_codes: The exit codes to explain, with their meanings.
    """
    width = max(_MIN_WIDTH, min(shutil.get_terminal_size().columns, _MAX_WIDTH))
    parts = [_usage(command, ctx, width), *_paragraphs(command.help or "", width)]
    sections: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        if not getattr(param, "hidden", False) and (row := _row(param)):
            is_argument = param.param_type_name == "argument"
            panel = getattr(param, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
            sections.setdefault(panel, []).append(row)
    commands = getattr(command, "commands", None)
    if commands:
        rows = [(name, _first_paragraph(each.help or "")) for name, each in commands.items()]
        sections = {"Commands": rows, **sections}
        sections["Exit codes"] = list(exit_codes.items())
    parts += [
        f"{typer.style(f'{title}:', bold=True)}\n{_list(rows, width)}" for title, rows in sections.items()
    ]
    parts += _paragraphs(command.epilog or "", width)
    if commands:
        parts.append(
            textwrap.fill(f"{ctx.command_path} COMMAND -h explains a command, with an example.", width)
        )
    return "\n\n".join(parts) + "\n"


def param_range(param: Any) -> str:
    """Return the allowed numbers of an option or argument in words, or "" if all are allowed."""
    # Releases of typer keep the bounds in different places.
    low, high = (
        next(
            (getattr(place, name) for place in (param, getattr(param, "type", None)) if _has(place, name)),
            None,
        )
        for name in ("min", "max")
    )
    return number_range(low, high)


def _has(place: Any, name: str) -> bool:
    return getattr(place, name, None) is not None


def _usage(command: Any, ctx: Any, width: int) -> str:
    words = [ctx.command_path, "[OPTIONS]"]
    arguments = [each for each in command.get_params(ctx) if each.param_type_name == "argument"]
    words += [_argument(each) if each.required else f"[{_argument(each)}]" for each in arguments]
    if getattr(command, "commands", None):
        words.append("COMMAND [ARGUMENTS]")
    lines = textwrap.wrap(" ".join(words), width, initial_indent="Usage: ", subsequent_indent=" " * 11)
    return "\n".join(lines)


def _paragraphs(text: str, width: int) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        line = " ".join(paragraph.split())
        if line.startswith(_EXAMPLE):
            yield f"{typer.style('Example:', bold=True)}\n{_command_line(line.removeprefix(_EXAMPLE), width)}"
        elif line:
            yield textwrap.fill(line, width)


def _command_line(words: str, width: int) -> str:
    r"""Return a command line in lines that end with `\`, so that a shell takes them as they are."""
    # An option stays with its value.
    first, *others = words.split(" --")
    lines = [f"  {first}"]
    for option in others:
        if len(lines[-1]) + len(option) + 5 > width:
            lines[-1] += " \\"
            lines.append(f"      --{option}")
        else:
            lines[-1] += f" --{option}"
    return "\n".join(lines)


def _first_paragraph(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _argument(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _row(param: Any) -> tuple[str, str]:
    """Return an entry of the list of options: names with the kind of value, and a sentence with facts."""
    if param.param_type_name == "argument":
        names = _argument(param)
    else:
        options = sorted([*param.opts, *param.secondary_opts], key=lambda option: option.startswith("--"))
        # A flag takes no value.
        metavar = "" if param.is_flag else f" {param.metavar or param.name.upper()}"
        names = f"{', '.join(options)}{metavar}"
    facts = [param_range(param), _default(param), _environment(param)]
    text = "; ".join(fact for fact in facts if fact)
    sentence = " ".join((getattr(param, "help", None) or "").split())
    if param.required and param.param_type_name == "option":
        sentence = f"{sentence} Required."
    return names, f"{sentence} ({text})" if text else sentence


def _default(param: Any) -> str:
    shown, value = getattr(param, "show_default", False), param.default
    if isinstance(shown, str):
        return f"default: {shown}"
    if not shown or value is None or value == "" or callable(value) or isinstance(value, list | tuple):
        return ""
    if isinstance(value, bool):
        # A flag without a counterpart is off.
        return f"default: {'yes' if value else 'no'}" if param.secondary_opts else ""
    if isinstance(value, Enum):
        value = value.value
    return f"default: {value:g}" if isinstance(value, float) else f"default: {value}"


def _environment(param: Any) -> str:
    name = getattr(param, "envvar", None)
    return f"environment: {name}" if isinstance(name, str) else ""


def _list(rows: list[tuple[str, str]], width: int) -> str:
    first = min(max(len(names) for names, _ in rows), _FIRST_COLUMN) + 4
    lines = []
    for names, text in rows:
        wrapped = textwrap.wrap(text, max(width - first, 20), break_on_hyphens=False) or [""]
        if len(names) > first - 4:
            lines.append(f"  {typer.style(names, bold=True)}")
        else:
            lines.append(
                f"  {typer.style(names, bold=True)}{' ' * (first - 2 - len(names))}{wrapped.pop(0)}".rstrip()
            )
        lines += [f"{' ' * first}{line}" for line in wrapped]
    return "\n".join(lines)
