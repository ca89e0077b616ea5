"""The model versions in a repository, `ROOT/<model>/<version>/`: listed, read and verified.

A version is a folder with a manifest and the graphs that it lists. Reading needs no ONNX package, no ONNX
Runtime and no torch.
"""

import errno
import hashlib
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from convvae_service.bundle.errors import BundleError
from convvae_service.bundle.graphs import Precision, Role
from convvae_service.bundle.manifest import Manifest
from convvae_service.bundle.names import VERSION_NAME
from convvae_service.bundle.onnx_file import refuse_external_data

__all__ = [
    "MANIFEST_FILE",
    "Bundle",
    "is_version",
    "list_models",
    "list_versions",
    "read_bundle",
    "read_manifest",
]

MANIFEST_FILE = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
# Errors that say nothing about the file: the disk fails, or the process has too many files open.
_NOW = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """One model version, read and verified. `graphs` maps (role, precision) to ONNX bytes."""

    manifest: Manifest
    version: int
    graphs: Mapping[tuple[Role, Precision], bytes]


def list_models(root: Path) -> list[str]:
    """Return the names of the models under `root` that have a published version, sorted.

    Raises:
        BundleError: `root` is not a folder, or cannot be read.
    """
    try:
        names = sorted(entry.name for entry in root.iterdir())
    except FileNotFoundError:
        raise BundleError(f"model repository {str(root)!r} does not exist") from None
    except NotADirectoryError:
        raise BundleError(f"model repository {str(root)!r} is not a folder") from None
    except (OSError, RuntimeError) as error:
        raise BundleError(f"model repository {str(root)!r} cannot be read: {_reason(error)}") from None
    return [name for name in names if list_versions(root, name)]


def list_versions(root: Path, model: str) -> list[int]:
    """Return the published versions of `model`, ascending. A folder without a manifest does not count."""
    try:
        entries = list((root / model).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, RuntimeError) as error:
        # The root of a disk has folders that only the system may read, such as lost+found.
        _log.warning(
            "a folder of the repository cannot be read and is skipped",
            extra={"facts": {"folder": model, "error": _reason(error)}},
        )
        return []
    return sorted(int(entry.name) for entry in entries if _is_listed(entry))


def is_version(folder: Path) -> bool:
    """Return whether a folder has a manifest of any kind: reading it says what is wrong with it.

    Raises:
        OSError: The disk cannot say so now.
    """
    try:
        # A link to nothing counts too.
        (folder / MANIFEST_FILE).lstat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        if error.errno not in (errno.EACCES, errno.ELOOP):
            raise
    return True


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the version in `folder`.

    Raises:
        BundleError: The file is missing, unreadable, or not a manifest of a known schema.
    """
    with _open_inside(folder, MANIFEST_FILE) as file:
        data = file.read(_MAX_MANIFEST_BYTES + 1)
    if len(data) > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_FILE} is larger than {_MAX_MANIFEST_BYTES} bytes")
    return Manifest.from_json(data)


def read_bundle(folder: Path) -> Bundle:
    """Read and verify the version in `folder`. Each file is read once.

    Raises:
        BundleError: A file is missing, damaged, outside the folder, or has external data. Or the manifest is
            wrong, or names another model than the folder above it.
        OSError: A file cannot be read now.
    """
    if not VERSION_NAME.fullmatch(folder.name):
        raise BundleError(f"{folder.name!r} is not a version: it must be a positive integer")
    manifest = read_manifest(folder)
    if manifest.model != folder.parent.name:
        raise BundleError(f"manifest is of model {manifest.model!r}, its folder of {folder.parent.name!r}")
    graphs = {}
    for graph in manifest.graphs:
        with _open_inside(folder, graph.file) as file:
            size = os.fstat(file.fileno()).st_size
            if size != graph.bytes:
                raise BundleError(f"{graph.file} has {size} bytes, the manifest states {graph.bytes}")
            data = file.read()
        digest = hashlib.sha256(data).hexdigest()
        if digest != graph.sha256:
            raise BundleError(
                f"{graph.file} is damaged: its sha256 is {digest[:12]}…, the manifest's {graph.sha256[:12]}…"
            )
        refuse_external_data(data, graph.file)
        graphs[graph.role, graph.precision] = data
    return Bundle(manifest=manifest, version=int(folder.name), graphs=graphs)


def _is_listed(entry: Path) -> bool:
    if not VERSION_NAME.fullmatch(entry.name):
        return False
    try:
        return is_version(entry)
    except OSError:
        # It counts, so that reading it reports the error.
        return True


def _open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a file of the version's own folder. A link that leaves the folder is refused."""
    path = folder / name
    try:
        # Kubernetes mounts files as links within the folder, so links are followed.
        target = path.resolve(strict=True)
        if not target.is_relative_to(folder.resolve(strict=True)):
            raise BundleError(
                f"{name} is a link that leaves its version's folder: copy the version with cp -RL, which"
                " copies the files that links lead to"
            )
        if not stat.S_ISREG(target.stat().st_mode):
            raise BundleError(f"{name} is not a regular file")
        # Opening a pipe that took its place meanwhile does not wait for the other end.
        return os.fdopen(os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        if path.is_symlink():
            raise BundleError(f"{name} is a link to a file that is missing") from None
        raise BundleError(f"{name} is missing") from None
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) in _NOW:
            raise
        raise BundleError(f"{name} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    # A loop of links is a RuntimeError in some versions of Python.
    return str(getattr(error, "strerror", None) or error)
