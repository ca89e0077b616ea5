"""A wrong command line as one line: the parser's errors in the words of the programs."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, cast

import typer

from convvae.program.help_page import param_range

__all__ = ["ParserError", "WrongUsage", "wrong_usage"]

# The base of the parser's errors. typer has taken the parser in from click 8, and exports only this leaf.
ParserError = cast(type[Exception], typer.BadParameter.__mro__[2])

_KINDS = (
    (re.compile(r"valid integer"), "a whole number"),
    (re.compile(r"valid (number|float)"), "a number"),
    (re.compile(r"range|(greater|less) than"), ""),
)
_CLOSE = re.compile(r"(?:Did you mean|Possible options:?)\s*(.*?)[?)]*$")


class WrongUsage(Exception):
    """The command line is wrong. The message is one line, without `error:`."""


def wrong_usage(error: Any, words: Sequence[str]) -> WrongUsage:
    """Return an error of the parser in the words of the programs, with the command whose help to read.

    Args:
        error: The parser's error.
        words: The command line, without the program.
    """
    ctx = getattr(error, "ctx", None)
    command = ctx.command_path if ctx else ""
    text = _text(error, command, words)
    return WrongUsage(f"{text}; {command} -h explains the command" if command else text)


def _text(error: Any, command: str, words: Sequence[str]) -> str:
    message = " ".join(str(error.format_message()).split()).rstrip(".")
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return f"{command} has no option {error.option_name}{_suggestion(message)}"
    if missing := re.search(r"No such command '(.*?)'", message):
        # Older releases of typer suggest no command.
        close = difflib.get_close_matches(missing[1], error.ctx.command.commands)
        return f"{command} has no command {missing[1]!r}{_suggested(close)}"
    if kind == "MissingParameter" and error.param is not None:
        return f"{command} needs {_lacking(error.param, ctx=error.ctx)}"
    if kind == "BadOptionUsage":
        return f"{error.option_name} {'needs a' if 'requires' in message else 'takes no'} value"
    if unexpected := re.search(r"unexpected extra argument\S* \((.*)\)", message):
        return f"{command} takes no further words: {unexpected[1]}"
    if kind == "BadParameter" and error.param is not None:
        return _bad_value(error, words)
    return message


def _bad_value(error: Any, words: Sequence[str]) -> str:
    param = error.param
    reason = str(error.message).rstrip(".")
    for pattern, noun in _KINDS:
        if pattern.search(reason):
            allowed = ", ".join(part for part in (noun, param_range(param)) if part)
            return f"{_named_value(param, words)}: it must be {allowed}"
    if allowed_words := re.search(r"(?:Input should be|is not one of) (.*)$", reason):
        names = re.findall(r"[^\s',]+", allowed_words[1].replace(" or ", " "))
        return f"{_named_value(param, words)}: it must be {_alternatives(names)}"
    # The program's own words on a value.
    return f"{error.param_hint or _option(param)}: {reason}"


def _suggestion(message: str) -> str:
    found = _CLOSE.search(message)
    return _suggested(re.sub(r"['\"]", "", found[1]).split(", ") if found else [])


def _suggested(names: Sequence[str]) -> str:
    return f": did you mean {_alternatives(names)}?" if names else ""


def _alternatives(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _option(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    return str(max(param.opts, key=len))


def _lacking(param: Any, *, ctx: Any) -> str:
    """Return an option with its value, or all arguments: the parser cannot tell which one is missing."""
    if param.param_type_name == "argument":
        params = ctx.command.get_params(ctx)
        return " ".join(_option(each) for each in params if each.param_type_name == "argument")
    return f"{_option(param)} {param.metavar or ''}".rstrip()


def _named_value(param: Any, words: Sequence[str]) -> str:
    """Return an option and the value that the command line gives it, such as `--epochs is 'abc'`."""
    for index, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in param.opts:
            given = value if "=" in word else "".join(words[index + 1 : index + 2])
            return f"{option} is {given!r}"
    return f"{_option(param)} has a wrong value"
