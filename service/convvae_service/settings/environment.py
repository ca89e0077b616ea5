"""The environment variables of the server. An unknown variable with the server's prefix is refused."""

import difflib
import os
import re
from collections.abc import Iterable

from convvae_service.errors import StartupError

__all__ = ["CONFIG_VARIABLE", "ENV_PREFIX", "refuse_unknown_variables", "suggestion"]

ENV_PREFIX = "CONVVAE_SERVE_"
CONFIG_VARIABLE = f"{ENV_PREFIX}CONFIG"
# Kubernetes describes each service to every container by variables of these forms. Without this exception a
# service named `convvae-serve` would prevent its own pods from starting.
_SERVICE_LINK = re.compile(
    r".*_SERVICE_(HOST=.*|PORT(_\w+)?=\d+)"
    r"|.*_PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.*"
    r"|.*_PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*"
)


def refuse_unknown_variables(keys: Iterable[str]) -> None:
    """Check that each variable with the prefix is one of the settings `keys`, or names the config file.

    Raises:
        StartupError: A variable is unknown, and not a Kubernetes service link.
    """
    known = set(keys)
    for name, value in sorted(os.environ.items()):
        # pydantic-settings reads variables in any case, so they are checked in any case.
        upper = name.upper()
        if (
            not upper.startswith(ENV_PREFIX)
            or upper == CONFIG_VARIABLE
            or _SERVICE_LINK.fullmatch(f"{upper}={value}")
        ):
            continue
        key = upper.removeprefix(ENV_PREFIX).lower()
        if key not in known:
            close = suggestion(key, known)
            hint = f": did you mean {ENV_PREFIX}{close.upper()}?" if close else ""
            raise StartupError(f"unknown environment variable {name}{hint}")


def suggestion(key: str, keys: Iterable[str]) -> str | None:
    """Return the one of `keys` that is most similar to the unknown `key`, or None if none is similar."""
    close = difflib.get_close_matches(key, sorted(keys), n=1)
    return close[0] if close else None
