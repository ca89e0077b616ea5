"""The names that models, versions and objectives may have."""

import re

from convvae_service.bundle.errors import BundleError

__all__ = ["VERSION_NAME", "check_model_name", "check_objective_name"]

# A positive integer below 10^18.
VERSION_NAME = re.compile(r"[1-9][0-9]{0,17}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OBJECTIVE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
# The server's health service uses these names.
_RESERVED_NAMES = frozenset({"liveness"})


def check_model_name(name: str) -> str:
    """Return `name` if a model may have it.

    Raises:
        BundleError: `name` is reserved, or not 1 to 64 letters, digits, dots, dashes and underscores.
    """
    if not _MODEL_NAME.fullmatch(name):
        raise BundleError(
            f"{name[:80]!r} is not a model name: use 1 to 64 letters, digits, '.', '-' and '_', and start"
            " with a letter or a digit"
        )
    if name in _RESERVED_NAMES:
        raise BundleError(f"{name!r} is reserved for the health service: choose another model name")
    return name


def check_objective_name(name: str) -> str:
    """Return `name` if an objective may have it.

    Raises:
        BundleError: `name` is not 1 to 64 lower-case letters, digits and dashes.
    """
    if not _OBJECTIVE_NAME.fullmatch(name):
        raise BundleError(
            f"objective is {name[:80]!r}: use 1 to 64 lower-case letters, digits and '-', and start with a"
            " letter"
        )
    return name
