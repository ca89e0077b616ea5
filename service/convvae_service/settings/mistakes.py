"""A wrong setting or flag as one message that names it, its value and the allowed values."""

import re
from collections.abc import Sequence

from pydantic_core import ErrorDetails

from convvae_service.settings.environment import suggestion
from convvae_service.settings.numbers import allowed_numbers
from convvae_service.settings.serve import ServeSettings

__all__ = ["describe_setting", "describe_words"]

_KINDS = {"int_parsing": "a whole number", "int_from_float": "a whole number", "float_parsing": "a number"}
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}
_HELP = "convvae-serve run -h explains the options"


def describe_setting(item: ErrorDetails) -> str:
    """Return one error of pydantic as a message that names the flag and its value."""
    names = [str(part) for part in item["loc"]]
    flag = "--" + ".".join(names).replace("_", "-")
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"{flag} is required; {_HELP}"
    if not names:
        return message
    field = ServeSettings.model_fields.get(names[0])
    if item["type"] in _KINDS or item["type"] in _BOUNDS:
        numbers = allowed_numbers(names[0], field) if field else ""
        allowed = ", ".join(part for part in (_KINDS.get(item["type"]), numbers) if part)
        return f"{flag} is {str(item['input'])!r}: it must be {allowed}"
    if item["type"] == "literal_error":
        *others, last = re.findall(r"'(.*?)'", item["ctx"]["expected"])
        return f"{flag} is {str(item['input'])!r}: it must be {', '.join(others)} or {last}"
    return f"{flag}: {message}"


def describe_words(message: str, flags: Sequence[str]) -> str:
    """Return an error of argparse in the words of the programs.

    Args:
        message: The error's message.
        flags: The flags that there are, such as `--lanes`.
    """
    if unknown := re.match(r"unrecognized arguments: (\S+)", message):
        word = unknown[1].partition("=")[0]
        if not word.startswith("-"):
            return f"convvae-serve run takes no further words: {unknown[1]}; {_HELP}"
        close = suggestion(word, flags)
        hint = f": did you mean {close}?" if close else ""
        return f"convvae-serve run has no option {word}{hint}; {_HELP}"
    if lacking := re.match(r"argument (\S+): expected one argument", message):
        return f"{lacking[1]} needs a value; {_HELP}"
    return f"{message}; {_HELP}"
