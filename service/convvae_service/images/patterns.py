"""The files that a pattern stands for: `shard-{000..099}.tar`, `photos/*.parquet`, and both in one.

Shells expand braces and stars too. In quotes, or in an address such as `s3://bucket/{a,b}-*.tar`, they arrive
here.
"""

import fnmatch
import glob
import re

from convvae_service.images.address import is_address, shown_address
from convvae_service.images.location import Location, open_location
from convvae_service.images.packages import import_package
from convvae_service.images.source import BadSource

__all__ = ["expand"]

_MAX_FILES = 100_000
_STARS = r"[*?\[]"
_PATTERN = r"[{*?\[]"


def expand(text: str) -> list[Location]:
    """Return the locations that a source stands for: itself, or those of its pattern, sorted.

    A path that exists is taken as it is, whatever its name.

    Raises:
        BadSource: A star matches nothing, or braces give more than 100,000 names.
    """
    path, query = _divided(text)
    if not re.search(_PATTERN, path) or (not query and not is_address(path) and open_location(path).exists()):
        return [open_location(text)]
    return [location for name in _braces(path) for location in _stars(name, query)]


def _divided(text: str) -> tuple[str, str]:
    """Return a path, and the query of an address from its question mark on."""
    if not is_address(text):
        return text, ""
    path, mark, query = text.partition("?")
    return path, mark + query


def _braces(text: str) -> list[str]:
    if "{" not in text:
        return [text]
    bracex = import_package("bracex")
    try:
        return list(bracex.expand(text, limit=_MAX_FILES, keep_escapes=True))
    except bracex.ExpansionLimitException:
        raise BadSource(f"source '{shown_address(text)}' stands for more than {_MAX_FILES} files") from None


def _stars(path: str, query: str) -> list[Location]:
    if not re.search(_STARS, path):
        return [open_location(path + query)]
    if not is_address(path):
        found = _local(path)
    else:
        folder, _, pattern = path.rpartition("/")
        if re.search(_STARS, folder):
            raise BadSource(f"source '{shown_address(path)}': stars stand for files alone, not for folders")
        base = open_location(folder + query)
        if base.path is not None:  # an address of this machine
            found = _local(f"{glob.escape(str(base.path))}/{pattern}")
        else:
            names = [name for name, _ in base.entries(recursive=False) if fnmatch.fnmatchcase(name, pattern)]
            found = [base.below(name) for name in names]
    if not found:
        raise BadSource(f"source '{shown_address(path)}' matches no file")
    return found


def _local(pattern: str) -> list[Location]:
    return [open_location(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
