"""The folder of one version, and the name and the number that the version has on this server."""

from dataclasses import dataclass
from pathlib import Path

from convvae_service.bundle import Bundle, read_bundle

__all__ = ["VersionFolder"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionFolder:
    """A version on disk.

    Args:
        path: The folder with its manifest.
        model: The model that its manifest must name; None for any.
        version: Its number.
        name: The name of its model for callers.
    """

    path: Path
    model: str | None
    version: int
    name: str

    def read(self) -> Bundle:
        """Read and verify the version, as `read_bundle` does.

        Raises:
            BundleError: As `read_bundle` does.
            OSError: A file cannot be read now.
        """
        return read_bundle(self.path, model=self.model, version=self.version)
