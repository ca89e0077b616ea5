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
    """A model and one of its versions. Version 0 is the default version, an empty name the only model."""

    name: str = ""
    version: int = 0

    @classmethod
    def parse(cls, spec: str) -> Self:
        """Parse `NAME`, `NAME@VERSION` or the empty string.

        Raises:
            InvalidInput: `spec` has another form.
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
        """Return the name as a protobuf message."""
        return vae_pb2.ModelRef(name=self.name, version=self.version)
