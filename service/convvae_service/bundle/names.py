"""The names that models, versions, objectives and files may have, and the form of a checksum."""

import re

from convvae_service.bundle.errors import BundleError

__all__ = ["VERSION_NAME", "check_file_name", "check_model_name", "check_objective_name", "check_sha256"]

# A positive integer below 10^18.
VERSION_NAME = re.compile(r"[1-9][0-9]{0,17}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OBJECTIVE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
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


def check_file_name(name: str, what: str) -> None:
    """Raise `BundleError` unless `name` is that of a file in the version's own folder; `what` names it."""
    if not _FILE_NAME.fullmatch(name):
        raise BundleError(f"{what} {name[:128]!r} is not a plain file name")


def check_sha256(digest: str, file: str) -> None:
    """Raise `BundleError` unless `digest` has the form of a sha256; `file` names its file."""
    if not _SHA256.fullmatch(digest):
        raise BundleError(f"sha256 of {file} is not 64 lower-case hexadecimal digits")
