"""The segments of a run: its start and every resume, each with what computed from there on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["RunSegment", "distinct", "libraries_of", "segments_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSegment:
    """What computed the steps from `step` to the next segment's, and what was typed to start it."""

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


def segments_of(record: Mapping[str, Any]) -> list[RunSegment]:
    """Return the segments that `run.json` has; of a run whose trainer kept none, the start alone.

    Raises:
        ValueError: A segment lacks something, or has it of another type.
    """
    # What the earliest runs do not have.
    start = {"step": 0, "date": "", "hardware": "", "processes": 1, **record}
    names = [field.name for field in fields(RunSegment)]
    held = record.get("segments", [{name: start[name] for name in names}])
    if not isinstance(held, list) or not held:
        raise ValueError("its segments are none")
    kinds = {field.name: field.type for field in fields(RunSegment)}
    for segment in held:
        for name in names:
            expected = dict if name == "libraries" else kinds[name]
            if not isinstance(segment, dict) or type(segment.get(name)) is not expected:
                raise ValueError(f"it has a segment that does not say {name!r}")
    return [RunSegment(**{name: segment[name] for name in names}) for segment in held]


def distinct(segments: Sequence[RunSegment], name: str) -> list[Any]:
    """Return the segments' different values of a field, in their order."""
    found: list[Any] = []
    for segment in segments:
        if (value := getattr(segment, name)) not in found:
            found.append(value)
    return found


def libraries_of(segments: Sequence[RunSegment]) -> dict[str, str]:
    """Return the versions that the run was trained with; of a library that changed, one after the other."""
    names = dict.fromkeys(name for segment in segments for name in segment.libraries)
    return {
        name: ", ".join(
            dict.fromkeys(segment.libraries[name] for segment in segments if name in segment.libraries)
        )
        for name in names
    }
