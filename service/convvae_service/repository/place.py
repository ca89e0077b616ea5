"""The place of a server's models: a repository, the folder of one model, or one bundle."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from convvae_service.bundle import (
    VERSION_NAME,
    BundleError,
    folder_names,
    is_version,
    list_models,
    list_versions,
    published_versions,
    read_manifest,
)
from convvae_service.errors import StartupError
from convvae_service.repository.version_folder import VersionFolder

__all__ = ["Place", "find_place", "names_shown"]

_MAX_NAMES_SHOWN = 10
# The version of a bundle whose folder has no number, such as the one that a platform mounts.
_FIRST_VERSION = 1
# The name of a single model whose manifest cannot be read now.
_UNKNOWN_NAME = "model"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The place where versions are published. It is listed anew each time it is asked.

    Attributes:
        root: The folder: ROOT of ROOT/<model>/<version>/, the folder of a model, or that of a version.
        name: The name of the only model for callers. Empty: `root` is a repository of models.
        model: The name of the only model in its manifests; None if they could not be read.
        version: The only version, whose folder `root` is. 0: there are folders of versions.
    """

    root: Path
    name: str = ""
    model: str | None = None
    version: int = 0

    @property
    def aliases(self) -> dict[str, str]:
        """The names that stand for another one on this server: the one in the manifests of a single model."""
        return {self.model: self.name} if self.model and self.model != self.name else {}

    def names(self, *, known: Collection[str] = ()) -> list[str]:
        """Return the names that models may have, those that are `known` in any case.

        Raises:
            OSError: The folder cannot be listed.
        """
        return [self.name] if self.name else folder_names(self.root, known=known)

    def versions(self, name: str, *, known: Collection[int] = ()) -> list[int]:
        """Return the published versions of a model, as `published_versions` does.

        Raises:
            OSError: The folder cannot be listed, or the disk cannot say now whether a version is there.
        """
        if self.version:
            return [self.version] if is_version(self.root) else []
        return published_versions(self._folder_of(name), known=known)

    def published(self) -> dict[str, list[int]]:
        """Return the published versions by model. Folders that cannot be listed are left out.

        Raises:
            BundleError: `root` is not a folder, or cannot be read.
        """
        if not self.name:
            return {name: list_versions(self.root, name) for name in list_models(self.root)}
        if self.version:
            versions = [self.version]
        else:
            folder = self.root.resolve()
            versions = list_versions(folder.parent, folder.name)
        return {self.name: versions} if versions else {}

    def folder(self, name: str, version: int) -> VersionFolder:
        """Return the folder of a version."""
        path = self.root if self.version else self._folder_of(name) / str(version)
        return VersionFolder(path=path, model=self.model if self.name else name, version=version, name=name)

    def _folder_of(self, name: str) -> Path:
        return self.root if self.name else self.root / name


def find_place(root: Path, name: str = "") -> Place:
    """Return what stands at `root`. A folder with models is a repository, whatever else is in it.

    Args:
        root: The folder.
        name: The name of the only model for callers; empty for the name in its manifest.

    Raises:
        BundleError: `root` is not a folder, or cannot be read.
        StartupError: There is a name, and not one model.
    """
    models = list_models(root)
    if len(models) > 1 and name:
        raise StartupError(
            f"--model-name is the name of one model, and {str(root)!r} has {len(models)}:"
            f" {names_shown(models)}: give the folder of one of them to --models"
        )
    if models and not name:
        return Place(root=root)
    if models:
        (model,) = models
        return _one_model(root / model, name)
    with suppress(OSError):
        if is_version(root):
            number = root.resolve().name
            version = int(number) if VERSION_NAME.fullmatch(number) else _FIRST_VERSION
            model_name = _model_of([root])
            return Place(
                root=root, name=name or model_name or _UNKNOWN_NAME, model=model_name, version=version
            )
        if published_versions(root):
            return _one_model(root, name)
    if name:
        raise StartupError(
            f"no model version is published under {str(root)!r}: --model-name needs one at the start"
        )
    return Place(root=root)


def names_shown(names: Collection[str]) -> str:
    """Return names for a message, and an ellipsis for those that are too many."""
    return ", ".join(list(names)[:_MAX_NAMES_SHOWN]) + (", …" if len(names) > _MAX_NAMES_SHOWN else "")


def _one_model(folder: Path, name: str) -> Place:
    versions: list[int] = []
    with suppress(OSError):
        versions = published_versions(folder)
    model = _model_of(folder / str(version) for version in reversed(versions))
    return Place(root=folder, name=name or model or _UNKNOWN_NAME, model=model)


def _model_of(folders: Iterable[Path]) -> str | None:
    """Return the model that the first readable manifest names."""
    for folder in folders:
        with suppress(BundleError, OSError):
            return read_manifest(folder).model
    return None
