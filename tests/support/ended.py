"""How a command ended."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """Exit code, output and errors of a command."""

    code: int
    out: str
    err: str
