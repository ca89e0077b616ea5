"""The environment's variables that are settings; one of that prefix that is none is refused."""

import difflib
import os
import re
from collections.abc import Iterable

from convvae_service.errors import StartupError

__all__ = ["CONFIG_VARIABLE", "ENV_PREFIX", "nearest", "refuse_unknown_variables"]

ENV_PREFIX = "CONVVAE_SERVE_"
CONFIG_VARIABLE = f"{ENV_PREFIX}CONFIG"
# Kubernetes describes services to every container in variables of these forms; a service named
# `convvae-serve` would otherwise keep its own pods from starting.
_SERVICE_LINK = re.compile(
    r".*_SERVICE_(HOST=.*|PORT(_\w+)?=\d+)"
    r"|.*_PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.*"
    r"|.*_PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*"
)


def refuse_unknown_variables(keys: Iterable[str]) -> None:
    """Check that each variable of the prefix is one of the settings `keys`, or names the file.

    Raises:
        StartupError: A variable is none of these, nor Kubernetes' description of a service.
    """
    known = set(keys)
    for name, value in sorted(os.environ.items()):
        # Names count in any case, as they do where values are read.
        upper = name.upper()
        if (
            not upper.startswith(ENV_PREFIX)
            or upper == CONFIG_VARIABLE
            or _SERVICE_LINK.fullmatch(f"{upper}={value}")
        ):
            continue
        key = upper.removeprefix(ENV_PREFIX).lower()
        if key not in known:
            raise StartupError(f"unknown environment variable {name}{nearest(key, known, ENV_PREFIX)}")


def nearest(key: str, keys: Iterable[str], prefix: str = "") -> str:
    """Return the end of a message about the unknown `key`: which of `keys` may have been meant, if any."""
    close = difflib.get_close_matches(key, sorted(keys), n=1)
    return f": did you mean {prefix}{close[0].upper() if prefix else close[0]}?" if close else ""
