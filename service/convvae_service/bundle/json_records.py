"""JSON objects as frozen dataclasses, with every key and type checked."""

import dataclasses
import json
import math
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from convvae_service.bundle.errors import BundleError

__all__ = ["decode_record", "parse_object"]

T = TypeVar("T")


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in `text`. Messages call it `where`.

    Raises:
        BundleError: `text` is not JSON, contains NaN or Infinity, or is not an object.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
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
        raise BundleError(f"{where} has the unknown key {unknown[0]!r}")
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
        return {k: _decode_value(get_args(hint)[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is Literal:
        if value not in get_args(hint):
            known = ", ".join(map(str, get_args(hint)))
            raise BundleError(f"{where} is {value!r}: it must be one of {known}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return decode_record(hint, value, where)
    if hint is Any:
        return value
    accepted = get_args(hint) if origin in (types.UnionType, Union) else (hint,)
    if float in accepted and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise BundleError(f"{where} is larger than a float can be") from None
    if type(value) not in accepted or (isinstance(value, float) and not math.isfinite(value)):
        names = " or ".join("null" if t is types.NoneType else t.__name__ for t in accepted)
        raise BundleError(f"{where} is {value!r}, not {names}")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
