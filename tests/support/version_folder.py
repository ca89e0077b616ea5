"""A version of a repository, for tests that load one without its repository."""

from pathlib import Path

from convvae_service.repository.version_folder import VersionFolder

__all__ = ["version_at"]


def version_at(path: Path) -> VersionFolder:
    """Return the version at ROOT/<model>/<version>."""
    model = path.parent.name
    return VersionFolder(path=path, model=model, version=int(path.name), name=model)
