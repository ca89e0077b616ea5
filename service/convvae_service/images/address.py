"""Addresses of files in the file systems that pyarrow opens, such as `s3://bucket/key`."""

import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from convvae_service.images.packages import import_package
from convvae_service.images.source import BadSource
from convvae_service.printable import printable

__all__ = ["FAILURES", "is_address", "open_address", "shown_address"]

# The errors of pyarrow's file systems: of a kind that this pyarrow or its packages lack, too.
FAILURES = (OSError, ValueError, NotImplementedError, ImportError)

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://")
_SECRET = re.compile(r"(://[^/@:\s]*:)[^/@\s]*@")
# Letters that stay as they are. An address has no fragment, so `#` belongs to a name.
_PLAIN = "%/:?@[]!$&'()*+,;=~"
# Their addresses are a bucket and a key. A file system is opened once for each bucket.
_BUCKETS = ("s3", "gs", "gcs")
_MAX_OPEN = 16


def is_address(text: str) -> bool:
    """Return whether a text is an address, and no path."""
    return _ADDRESS.match(text) is not None


def shown_address(text: str) -> str:
    """Return a text for messages: what a terminal can show, without the secret key of an address."""
    return printable(_SECRET.sub(r"\1***@", text))


def open_address(text: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it.

    Raises:
        BadSource: pyarrow opens no such address, or is not installed.
    """
    files = import_package("pyarrow.fs")
    try:
        address = quote(text, safe=_PLAIN)
        parts = urlsplit(address)
        if parts.scheme not in _BUCKETS or not parts.hostname:
            found: tuple[Any, str] = files.FileSystem.from_uri(address)
            return found
        system, bucket = _open_bucket(parts._replace(path="").geturl())
        return system, (bucket + unquote(parts.path)).rstrip("/")
    except FAILURES as error:
        reason = shown_address((str(error) or type(error).__name__).splitlines()[0][:300])
        raise BadSource(f"source '{shown_address(text)}' cannot be opened: {reason}") from None


@lru_cache(maxsize=_MAX_OPEN)
def _open_bucket(address: str) -> tuple[Any, str]:
    found: tuple[Any, str] = import_package("pyarrow.fs").FileSystem.from_uri(address)
    return found
