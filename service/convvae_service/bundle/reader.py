"""A model version in a repository, `ROOT/<model>/<version>/`: read and verified.

A version is a folder with a manifest and the files that it lists. Reading needs no ONNX package, no ONNX
Runtime and no torch. A server reads the graphs alone.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle.errors import BundleError
from convvae_service.bundle.graphs import Graph, Precision, Role
from convvae_service.bundle.listing import MANIFEST_FILE, reason
from convvae_service.bundle.manifest import Manifest
from convvae_service.bundle.names import VERSION_NAME
from convvae_service.bundle.onnx_file import read_model, refuse_external_data
from convvae_service.bundle.operators import may_grow, refuse_many_operators, refuse_operators
from convvae_service.bundle.trained_on import decode_trained_on

__all__ = ["Bundle", "read_bundle", "read_manifest", "read_trained_on"]

_MAX_MANIFEST_BYTES = 1 << 20
# Errors that say nothing about the file: the disk fails, or the process has too many files open.
_NOW = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """One model version, read and verified.

    Attributes:
        manifest: The manifest.
        version: The version's number.
        graphs: ONNX bytes by role and precision.
        growing: The precisions with a graph whose memory its size does not tell; see `may_grow`.
        sha256: The checksum of the manifest's bytes, which state the checksums of the graphs.
    """

    manifest: Manifest
    version: int
    graphs: Mapping[tuple[Role, Precision], bytes]
    growing: frozenset[Precision]
    sha256: str


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the version in `folder`.

    Raises:
        BundleError: The file is missing, unreadable, or not a manifest of a known schema.
    """
    return Manifest.from_json(_read_manifest_bytes(folder))


def read_bundle(folder: Path, *, model: str | None = None, version: int | None = None) -> Bundle:
    """Read and verify the version in `folder`. Each file is read once.

    Args:
        folder: ROOT/<model>/<version>, or any folder if `version` is given.
        model: The model that the manifest must name. Without it, that is the folder's <model>; with `version`
            alone, it is any.
        version: The number of the version; None takes the folder's.

    Raises:
        BundleError: A file is missing, damaged or outside the folder. A graph has external data, or operators
            that a bundle may not have. Or the manifest is wrong, or names another model.
        OSError: A file cannot be read now.
    """
    if version is None:
        if not VERSION_NAME.fullmatch(folder.name):
            raise BundleError(f"{folder.name!r} is not a version: it must be a positive integer")
        model, version = model or folder.parent.name, int(folder.name)
    data = _read_manifest_bytes(folder)
    manifest = Manifest.from_json(data)
    if model is not None and manifest.model != model:
        raise BundleError(f"manifest is of model {manifest.model!r}, its folder of {model!r}")
    graphs: dict[tuple[Role, Precision], bytes] = {}
    growing = set()
    for graph in manifest.graphs:
        try:
            graphs[graph.role, graph.precision] = _read_graph(folder, graph)
            model = read_model(graphs[graph.role, graph.precision], graph.file)
        except MemoryError:
            raise BundleError(f"{graph.file} does not fit into memory: it has {graph.bytes} bytes") from None
        refuse_many_operators(model, graph.file)
        refuse_external_data(model, graph.file)
        refuse_operators(model, graph.file)
        if may_grow(model):
            growing.add(graph.precision)
    return Bundle(
        manifest=manifest,
        version=version,
        graphs=graphs,
        growing=frozenset(growing),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def read_trained_on(folder: Path, manifest: Manifest) -> NDArray[np.uint64] | None:
    """Read and verify the fingerprints of the images that the version in `folder` was trained on.

    Returns:
        uint64 of shape (count,), in ascending order; None if the manifest lists no file of fingerprints.

    Raises:
        BundleError: The file is missing, damaged or outside the folder.
        OSError: The file cannot be read now.
    """
    entry = manifest.trained_on
    if entry is None:
        return None
    try:
        return decode_trained_on(_read_file(folder, entry.file, entry.bytes), entry)
    except MemoryError:
        raise BundleError(f"{entry.file} does not fit into memory: it has {entry.bytes} bytes") from None


def _read_manifest_bytes(folder: Path) -> bytes:
    with _open_inside(folder, MANIFEST_FILE) as file:
        data = file.read(_MAX_MANIFEST_BYTES + 1)
    if len(data) > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_FILE} is larger than {_MAX_MANIFEST_BYTES} bytes")
    return data


def _read_graph(folder: Path, graph: Graph) -> bytes:
    """Return the bytes of a graph's file after a check of their number and checksum."""
    data = _read_file(folder, graph.file, graph.bytes)
    digest = hashlib.sha256(data).hexdigest()
    if digest != graph.sha256:
        raise BundleError(
            f"{graph.file} is damaged: its sha256 is {digest[:12]}…, the manifest's {graph.sha256[:12]}…"
        )
    return data


def _read_file(folder: Path, name: str, num_bytes: int) -> bytes:
    """Return the bytes of a file of which the manifest states the number."""
    with _open_inside(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        # A file that grows meanwhile is not read beyond its stated end.
        data = file.read(num_bytes) if size == num_bytes else b""
    if len(data) != num_bytes:
        raise BundleError(f"{name} has {size} bytes, the manifest states {num_bytes}")
    return data


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
        raise BundleError(f"{name} cannot be read: {reason(error)}") from None
