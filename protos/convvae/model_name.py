"""The name of a model, with or without a version: `mnist`, `mnist@3`."""

import re
from dataclasses import dataclass
from typing import Self

from convvae.errors import InvalidInput
from convvae.v1 import vae_pb2

__all__ = ["ModelName"]

_SPEC = re.compile(r"(?P<name>[^@\s]+)(?:@(?P<version>[1-9][0-9]{0,17}))?")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model and, unless it is 0, one of its versions. The empty name is the server's only model."""

    name: str = ""
    version: int = 0

    @classmethod
    def parse(cls, spec: str) -> Self:
        """Read `NAME`, `NAME@VERSION` or the empty string.

        Raises:
            InvalidInput: It is none of these.
        """
        if spec == "":
            return cls()
        found = _SPEC.fullmatch(spec)
        if found is None:
            raise InvalidInput(f"model is {spec!r}; write NAME or NAME@VERSION, such as 'mnist' or 'mnist@3'")
        return cls(found["name"], int(found["version"] or 0))

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name

    def to_message(self) -> vae_pb2.ModelRef:
        """Return it as the wire has it."""
        return vae_pb2.ModelRef(name=self.name, version=self.version)
