"""The installed version of the distribution `convvae`."""

from importlib import metadata

__all__ = ["distribution_version"]


def distribution_version() -> str:
    """Return the installed version, or `unknown` when the package runs from a source tree."""
    try:
        return metadata.version("convvae")
    except metadata.PackageNotFoundError:
        return "unknown"
