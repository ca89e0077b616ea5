"""The error for a bundle that cannot be used."""

__all__ = ["BundleError"]


class BundleError(ValueError):
    """A bundle cannot be used. The message names the part and what is wrong with it."""
