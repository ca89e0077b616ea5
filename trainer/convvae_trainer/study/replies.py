"""The answers of a child process to the study, as lines of JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Self

__all__ = ["Reply"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The end of a run. `text` says in one line why it failed; it is empty if the model is published."""

    run: str
    text: str

    def to_line(self) -> str:
        """Return the reply as one line."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Return the reply of a line that `to_line` returned."""
        return cls(**json.loads(line))
