"""References to published versions: ROOT/MODEL, ROOT/MODEL@VERSION and ROOT/MODEL/VERSION."""

import os
from pathlib import Path

from convvae_service.bundle.errors import BundleError
from convvae_service.bundle.listing import MANIFEST_FILE, list_models, list_versions
from convvae_service.bundle.names import VERSION_NAME

__all__ = ["NoSuchVersion", "version_folder"]

_MAX_NAMED = 5
_FORMS = "give ROOT/MODEL, ROOT/MODEL@VERSION or the folder of a version"


class NoSuchVersion(BundleError):
    """No version is published under a reference."""


def version_folder(reference: str | os.PathLike[str]) -> Path:
    """Return the folder of the version that a reference names. Without a version it is the highest one.

    Raises:
        NoSuchVersion: There is no such model or version. The message names those that there are.
    """
    # Absolute, because the names of the folders are the names of the model and version.
    path = Path(reference).expanduser().absolute()
    if (path / MANIFEST_FILE).is_file():
        return path
    name, at, version = path.name.partition("@")
    model = path.with_name(name) if at and name else path
    versions = list_versions(model.parent, model.name)
    if versions and not at:
        return model / str(versions[-1])
    if not versions and not at and VERSION_NAME.fullmatch(path.name):
        # The folder of a version that is not there.
        model, version = path.parent, path.name
        versions = list_versions(model.parent, model.name)
    if not versions:
        raise NoSuchVersion(f"no model is published at {str(reference)!r}: {_hint(model)}")
    if VERSION_NAME.fullmatch(version) and int(version) in versions:
        return model / version
    known = ", ".join(map(str, versions[-_MAX_NAMED:]))
    raise NoSuchVersion(f"model {str(model)!r} has no version {version!r}: it has {known}")


def _hint(model: Path) -> str:
    """Return what to give instead: a model of the same repository, or of the one that was named."""
    for root in (model, model.parent):
        if root.is_dir() and (names := list_models(root)):
            models = ", ".join(str(root / name) for name in names[:_MAX_NAMED])
            return f"there is {models}"
    return _FORMS
