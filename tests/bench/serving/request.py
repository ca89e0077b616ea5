"""A request that is made before the clock starts, to any server."""

import base64
from dataclasses import dataclass
from typing import Self

__all__ = ["Request"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to any server.

    Attributes:
        protocol: `grpc`, or `http` for HTTP/1.1.
        path: Of the method, with its slash.
        body: The message.
        content_type: Of the body; not for gRPC.
    """

    protocol: str
    path: str
    body: bytes
    content_type: str = "application/octet-stream"

    def as_json(self) -> dict[str, str]:
        """Return the request for `from_json`."""
        return {**vars(self), "body": base64.b64encode(self.body).decode()}

    @classmethod
    def from_json(cls, words: dict[str, str]) -> Self:
        """Return the request of `as_json`."""
        return cls(**{**words, "body": base64.b64decode(words["body"])})  # type: ignore[arg-type]
