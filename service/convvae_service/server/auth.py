"""Bearer tokens: they say who may call."""

import codecs
import hashlib
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from convvae_service.errors import StartupError, Unauthenticated
from convvae_service.server.watched_file import WatchedFile

__all__ = ["Tokens"]

_KEY = "authorization"
_SCHEME = "bearer "
_TOKEN = re.compile(rb"[\x21-\x7e]+")


class Tokens:
    """The tokens of a file, one a line. Empty lines and lines that start with `#` are skipped.

    The tokens follow the file. If it is then missing or has a line that is no token, this is logged, and the
    old tokens stay valid. If it has no token any more, nobody may call.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            StartupError: The file cannot be read, has no token, or has a line that is no token.
        """
        # Digests under a secret key are compared in place of tokens: the time of the search tells nothing
        # about a token, and does not grow with their number.
        self._keyed = hashlib.blake2b(key=secrets.token_bytes(32))
        try:
            self._file = WatchedFile((path,), self._parse)
            if not self._file.value:
                raise ValueError("has no token: write one token a line")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartupError(f"token file {str(path)!r}: {reason}") from None

    def look(self) -> None:
        """Read the file again, and use it if it has changed."""
        self._file.look()

    def check(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Accept a call whose metadata have one of the tokens, once, as `authorization: Bearer TOKEN`.

        Raises:
            Unauthenticated: The call has no token, one that is not in the file, or several.
        """
        given = [value for key, value in metadata or () if key == _KEY]
        if len(given) != 1 or not self._accepts(given[0]):
            raise Unauthenticated(f"a valid bearer token is needed in the metadata key {_KEY!r}")

    def _accepts(self, authorization: str | bytes) -> bool:
        if not isinstance(authorization, str) or not authorization.isascii():
            return False
        scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        return scheme.lower() == _SCHEME and self._digest(token.strip(" ").encode()) in self._file.value

    def _digest(self, token: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(token)
        return keyed.digest()

    def _parse(self, contents: tuple[bytes, ...]) -> frozenset[bytes]:
        """Return the digests of the tokens. Messages name lines by their numbers: the lines are secrets."""
        lines = contents[0].removeprefix(codecs.BOM_UTF8).splitlines()
        digests = set()
        for number, line in enumerate(map(bytes.strip, lines), start=1):
            if not line or line.startswith(b"#"):
                continue
            if not _TOKEN.fullmatch(line):
                raise ValueError(f"line {number} is no token: a token is visible ASCII characters, no spaces")
            digests.add(self._digest(line))
        return frozenset(digests)
