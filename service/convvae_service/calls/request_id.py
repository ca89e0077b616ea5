"""The id of a call: it joins the caller's log with the server's."""

import random
import re
from collections.abc import Iterable

__all__ = ["REQUEST_ID_KEY", "request_id_of"]

REQUEST_ID_KEY = "x-request-id"
# Ids must differ, and need not be secret: the system's own random numbers cost 10 us each.
_random = random.Random()  # noqa: S311
_USABLE = re.compile(r"[\x21-\x7e]{1,128}")


def request_id_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the caller's `x-request-id` if it is short and printable, or else a new id."""
    for key, value in metadata or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _USABLE.fullmatch(value):
            return value
    return f"{_random.getrandbits(64):016x}"
