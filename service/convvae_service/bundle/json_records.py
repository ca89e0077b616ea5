"""JSON objects as frozen dataclasses, with every key and type checked."""

import dataclasses
import json
import math
import types
from collections import Counter
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from convvae_service.bundle.errors import BundleError

__all__ = ["decode_record", "parse_object"]

T = TypeVar("T")
# A manifest has 5 levels, and metrics that are added to it a few more.
_MAX_DEPTH = 32
_TOO_DEEP = f"it is nested more than {_MAX_DEPTH} levels deep"
# 2^64 has 20 digits.
_MAX_DIGITS = 21


class _Unusable(Exception):
    """Valid JSON, but with a value that this program does not use."""


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in `text`, which is UTF-8. Messages call it `where`.

    Every number is finite, integers have at most 64 bits, and text has no half of a surrogate pair. So each
    value can be written as JSON again.

    Raises:
        BundleError: `text` is not JSON, is nested too deeply, has a key twice or a number that is too large,
            or is not an object.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_int=_parse_int,
            parse_float=_parse_float,
            object_pairs_hook=_parse_pairs,
        )
        _check_tree(value)
    except RecursionError:
        raise BundleError(f"{where}: {_TOO_DEEP}") from None
    except _Unusable as error:
        raise BundleError(f"{where}: {error}") from None
    except ValueError as error:
        raise BundleError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BundleError(f"{where} is not a JSON object")
    return value


def decode_record(kind: type[T], value: Any, where: str) -> T:
    """Build the dataclass `kind` from parsed JSON. Messages call the value `where`.

    Lists become tuples, and objects become dataclasses where `kind` has them.

    Raises:
        BundleError: A key is missing or unknown, or a value has another type.
    """
    if not isinstance(value, dict):
        raise BundleError(f"{where} is not a JSON object")
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(value) - set(fields)):
        raise BundleError(f"{where} has the unknown key {_shown(unknown[0])}")
    arguments = {}
    for name, spec in fields.items():
        if name in value:
            arguments[name] = _decode_value(hints[name], value[name], f"{where}.{name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise BundleError(f"{where} lacks the key {name!r}")
    return kind(**arguments)


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise BundleError(f"{where} is not a list")
        return tuple(_decode_value(get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise BundleError(f"{where} is not a JSON object")
        return {k: _decode_value(get_args(hint)[1], v, f"{where}.{k[:64]}") for k, v in value.items()}
    if origin is Literal:
        if value not in get_args(hint):
            known = ", ".join(map(str, get_args(hint)))
            raise BundleError(f"{where} is {_shown(value)}: it must be one of {known}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return decode_record(hint, value, where)
    if hint is Any:
        return value
    accepted = get_args(hint) if origin in (types.UnionType, Union) else (hint,)
    records = [each for each in accepted if dataclasses.is_dataclass(each) and isinstance(each, type)]
    if records and value is not None:
        return decode_record(records[0], value, where)
    if float in accepted and type(value) is int:
        return float(value)
    if type(value) not in accepted or (isinstance(value, float) and not math.isfinite(value)):
        names = " or ".join("null" if t is types.NoneType else t.__name__ for t in accepted)
        raise BundleError(f"{where} is {_shown(value)}, not {names}")
    return value


def _shown(value: Any) -> str:
    """Return a value as a message shows it. Lists and objects have no bound, so they are only named."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value[:80] if isinstance(value, str) else value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _parse_int(digits: str) -> int:
    # Python needs a time that grows with the square of their number, and refuses more than 4300.
    if len(digits) > _MAX_DIGITS or not -(2**63) <= (value := int(digits)) < 2**64:
        raise _Unusable(f"the integer {digits[:20]}… has more than 64 bits")
    return value


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Unusable(f"the number {text[:20]} is larger than a float can be")
    return value


def _parse_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _Unusable(f"it has the key {_shown(twice)} twice in one object")
    return value


def _check_tree(root: Any) -> None:
    """Raise `_Unusable` for text that is no UTF-8, and for a tree that is too deep for recursion."""
    waiting = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise _Unusable("a text has half of a surrogate pair") from None
        elif isinstance(value, (dict, list)):
            if depth > _MAX_DEPTH:
                raise _Unusable(_TOO_DEEP)
            waiting += [(each, depth + 1) for each in value] if isinstance(value, list) else []
            if isinstance(value, dict):
                waiting += [(each, depth + 1) for pair in value.items() for each in pair]
