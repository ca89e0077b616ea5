"""The legs of a run: its start and every resume, each with what computed from there on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Leg", "distinct", "legs_of", "libraries_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """What computed the steps from `step` to the next leg's, and what was typed to start it."""

    step: int
    command: str
    date: str
    commit: str
    libraries: dict[str, str]
    hardware: str
    device: str
    precision: str
    threads: int
    processes: int


def legs_of(record: Mapping[str, Any]) -> list[Leg]:
    """Return the legs that `run.json` has; of a run whose trainer kept none, the start alone.

    Raises:
        ValueError: A leg lacks something, or has it of another type.
    """
    # What the earliest runs do not have.
    start = {"step": 0, "date": "", "hardware": "", "processes": 1, **record}
    names = [field.name for field in fields(Leg)]
    held = record.get("legs", [{name: start[name] for name in names}])
    if not isinstance(held, list) or not held:
        raise ValueError("its legs are none")
    kinds = {field.name: field.type for field in fields(Leg)}
    for leg in held:
        for name in names:
            expected = dict if name == "libraries" else kinds[name]
            if not isinstance(leg, dict) or type(leg.get(name)) is not expected:
                raise ValueError(f"it has a leg that does not say {name!r}")
    return [Leg(**{name: leg[name] for name in names}) for leg in held]


def distinct(legs: Sequence[Leg], name: str) -> list[Any]:
    """Return the legs' different values of a field, in their order."""
    found: list[Any] = []
    for leg in legs:
        if (value := getattr(leg, name)) not in found:
            found.append(value)
    return found


def libraries_of(legs: Sequence[Leg]) -> dict[str, str]:
    """Return the versions that the run was trained with; of a library that changed, one after the other."""
    names = dict.fromkeys(name for leg in legs for name in leg.libraries)
    return {
        name: ", ".join(dict.fromkeys(leg.libraries[name] for leg in legs if name in leg.libraries))
        for name in names
    }
