"""The error for a bundle that cannot be used."""

from convvae_service.printable import printable

__all__ = ["BundleError"]

_MAX_LENGTH = 500


class BundleError(ValueError):
    """A bundle cannot be used. The message names the part and what is wrong with it.

    It is one printable line of bounded length, whatever a file of the bundle contains.
    """

    def __init__(self, message: str) -> None:
        if len(message) > _MAX_LENGTH:
            message = f"{message[: _MAX_LENGTH - 1]}…"
        super().__init__(printable(message))
