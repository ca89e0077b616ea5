"""Bearer tokens: they say who may call."""

import hmac
from collections.abc import Iterable
from pathlib import Path

from convvae_service.errors import StartupError, Unauthenticated
from convvae_service.server.watched_file import WatchedFile

__all__ = ["Tokens"]

_KEY = "authorization"
_SCHEME = "bearer "


class Tokens:
    """The tokens of a file, one a line. Empty lines and lines that start with `#` are skipped.

    The file is read again when it changes. If it is then missing or has no token, this is logged, and the old
    tokens stay valid.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            StartupError: The file cannot be read, or has no token.
        """
        self._file = WatchedFile((path,), _parse)
        try:
            self._file.load()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartupError(f"token file {str(path)!r}: {reason}") from None

    def check(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Accept a call whose metadata have one of the tokens, as `authorization: Bearer TOKEN`.

        Raises:
            Unauthenticated: The call has no token, or one that is not in the file.
        """
        given = dict(metadata or ()).get(_KEY, "")
        if not isinstance(given, str) or not self._accepts(given):
            raise Unauthenticated(f"a valid bearer token is needed in the metadata key {_KEY!r}")

    def _accepts(self, authorization: str) -> bool:
        given = authorization[len(_SCHEME) :].strip() if authorization.lower().startswith(_SCHEME) else ""
        # Compare with every token, in constant time: the time must not tell which one was nearly right.
        matches = [hmac.compare_digest(given.encode(), token) for token in self._file.current()]
        return any(matches)


def _parse(contents: tuple[bytes, ...]) -> tuple[bytes, ...]:
    lines = [line.strip() for line in contents[0].splitlines()]
    tokens = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not tokens:
        raise ValueError("has no token: write one token a line")
    return tokens
