"""Published versions on disk, with their manifests, and the names that the report gives them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convvae_service.bundle import (
    BundleError,
    Manifest,
    NoSuchVersion,
    Precision,
    read_manifest,
    version_folder,
)
from convvae_trainer.errors import BadConfig

__all__ = ["PublishedVersion", "check_same_shape", "find_version", "find_versions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedVersion:
    """A version on disk with its manifest. `label` is its name in the report."""

    label: str
    folder: Path
    manifest: Manifest

    @property
    def version(self) -> int:
        """The version's number."""
        return int(self.folder.name)

    @property
    def precision(self) -> Precision:
        """The precision of the graphs that are run: fp32 if the version has it."""
        return self.manifest.precisions[0]


def find_versions(references: Sequence[str]) -> list[PublishedVersion]:
    """Return the versions that references name; see `version_folder`.

    The label is the model's name. If several references have the same name, the label also has the version,
    and the repository's name if that is not enough.

    Raises:
        BadConfig: A model or version does not exist, or a version is given twice.
        BundleError: A manifest cannot be read.
    """
    folders = [_folder(reference) for reference in references]
    for row, folder in enumerate(folders):
        if folder in folders[:row]:
            raise BadConfig(f"{references[row]} is given twice: name each version once")
    names = [folder.parent.name for folder in folders]
    versions = [f"{folder.parent.name}@{folder.name}" for folder in folders]
    published = []
    for folder, name, version in zip(folders, names, versions, strict=True):
        label = name
        if names.count(name) > 1:
            label = version if versions.count(version) == 1 else f"{folder.parent.parent.name}/{version}"
        published.append(PublishedVersion(label=label, folder=folder, manifest=_manifest(folder)))
    return published


def find_version(reference: str) -> PublishedVersion:
    """Return the version that a reference names; see `version_folder`.

    Raises:
        BadConfig: It does not exist.
        BundleError: Its manifest cannot be read.
    """
    return find_versions([reference])[0]


def check_same_shape(versions: Sequence[PublishedVersion]) -> None:
    """Raise `BundleError` unless the images of all models have the same shape."""
    first = versions[0]
    for other in versions[1:]:
        if other.manifest.image != first.manifest.image:
            raise BundleError(
                f"images of {first.label} are {first.manifest.image}, images of {other.label} are"
                f" {other.manifest.image}: give models of the same image shape"
            )


def _folder(reference: str) -> Path:
    try:
        folder = version_folder(reference)
    except NoSuchVersion as error:
        raise BadConfig(str(error)) from None
    # One model under two names is one model.
    return folder.parent.resolve() / folder.name


def _manifest(folder: Path) -> Manifest:
    try:
        manifest = read_manifest(folder)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from None
    if not manifest.precisions:
        raise BundleError(f"{folder}: no precision has both an encoder and a decoder")
    return manifest
