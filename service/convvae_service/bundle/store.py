"""Model versions on disk: `ROOT/<model>/<version>/` with a manifest and the graphs it lists.

A version is written to a temporary sibling, manifest last, and renamed, so that a reader sees all of it or
nothing. Published versions never change. Nothing here needs ONNX, ONNX Runtime or torch.
"""

import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from convvae_service.bundle.manifest import (
    BundleError,
    Graph,
    ImageShape,
    Manifest,
    Precision,
    Role,
    expected_tensors,
)
from convvae_service.bundle.onnx_file import refuse_external_data

__all__ = [
    "MANIFEST_FILE",
    "METRICS_FILE",
    "VERSION_NAME",
    "Bundle",
    "describe_graph",
    "list_models",
    "list_versions",
    "publish",
    "read_bundle",
    "read_manifest",
]

MANIFEST_FILE = "manifest.json"
# The training metrics of a run, one JSON object a line; a bundle may hold it.
METRICS_FILE = "metrics.jsonl"
MAX_MANIFEST_BYTES = 1 << 20
_log = logging.getLogger(__name__)
VERSION_NAME = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """One model version, read and verified. `graphs` maps (role, precision) to ONNX bytes."""

    manifest: Manifest
    version: int
    graphs: Mapping[tuple[Role, Precision], bytes]


def list_models(root: Path) -> list[str]:
    """Return the names under `root` that have a published version, sorted."""
    try:
        names = sorted(entry.name for entry in root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"model repository {str(root)!r} is not a folder") from None
    except OSError as error:
        raise BundleError(f"model repository {str(root)!r} cannot be read: {error.strerror}") from None
    return [name for name in names if list_versions(root, name)]


def list_versions(root: Path, model: str) -> list[int]:
    """Return the published versions of `model`, ascending; a folder without a manifest is none."""
    try:
        entries = list((root / model).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        # The root of a disk has folders that are nobody's business, such as lost+found.
        _log.warning(
            "a folder of the repository cannot be read, passed over", extra={"facts": {"folder": model}}
        )
        return []
    return sorted(
        int(entry.name) for entry in entries if VERSION_NAME.fullmatch(entry.name) and _is_published(entry)
    )


def read_manifest(folder: Path) -> Manifest:
    """Read `folder`'s manifest.

    Raises:
        BundleError: There is none, it cannot be read, or it is no manifest of a known schema.
    """
    with _open_inside(folder, MANIFEST_FILE) as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_FILE} is larger than {MAX_MANIFEST_BYTES} bytes")
    return Manifest.from_json(data)


def read_bundle(folder: Path) -> Bundle:
    """Read and verify the version in `folder`, each file once.

    Raises:
        BundleError: A file is missing, damaged, outside the folder or keeps external data; or the manifest
            is wrong, or names another model than the folder above it.
    """
    if not VERSION_NAME.fullmatch(folder.name):
        raise BundleError(f"{folder.name!r} is not a version: a positive integer")
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


def describe_graph(
    data: bytes,
    *,
    role: Role,
    precision: Precision,
    opset: int,
    image: ImageShape,
    latent_dim: int,
    objective: str,
) -> Graph:
    """Return the manifest's entry for the ONNX bytes `data`.

    The file is named `<role>.onnx` for fp32 and `<role>.<precision>.onnx` for the others.
    """
    inputs, outputs = expected_tensors(role, image=image, latent_dim=latent_dim, objective=objective)
    return Graph(
        role=role,
        precision=precision,
        file=f"{role}.onnx" if precision == "fp32" else f"{role}.{precision}.onnx",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        inputs=inputs,
        outputs=outputs,
        opset=opset,
    )


def publish(
    root: Path,
    manifest: Manifest,
    graphs: Mapping[str, bytes],
    extras: Mapping[str, bytes] | None = None,
    *,
    before_rename: Callable[[Path], object] | None = None,
) -> Path:
    """Publish a new version of `manifest.model` under `root`, and return its folder.

    Args:
        root: The model repository; created when absent.
        manifest: Describes exactly the files of `graphs`.
        graphs: ONNX bytes by file name.
        extras: Further files by name (model card, pictures).
        before_rename: Called with the complete temporary folder; what it raises stops the publication.

    Raises:
        BundleError: `graphs` and the manifest disagree.
    """
    listed = {graph.file: graph.sha256 for graph in manifest.graphs}
    given = {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()}
    if listed != given:
        raise BundleError(f"graphs {sorted(given)} are not those that the manifest lists, {sorted(listed)}")
    folder = root / manifest.model
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".tmp-{secrets.token_hex(6)}"
    temporary.mkdir()
    try:
        for name, data in {**(extras or {}), **graphs}.items():
            _write(temporary / name, data)
        _write(temporary / MANIFEST_FILE, manifest.to_json().encode())
        _sync(temporary)
        if before_rename is not None:
            before_rename(temporary)
        target = _claim_next_version(folder, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(folder)
    return target


def _is_published(entry: Path) -> bool:
    try:
        return stat.S_ISREG((entry / MANIFEST_FILE).stat().st_mode)
    except PermissionError:
        # A version, of which reading will say what is wrong.
        return True
    except OSError:
        return False


def _claim_next_version(folder: Path, temporary: Path) -> Path:
    while True:
        taken = [int(entry.name) for entry in folder.iterdir() if VERSION_NAME.fullmatch(entry.name)]
        target = folder / str(max(taken, default=0) + 1)
        try:
            temporary.rename(target)
        except OSError:
            # Another publisher took this number between the look and the rename.
            if not target.exists():
                raise
        else:
            return target


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a file of the version's own folder; a link that leads out of it is refused."""
    try:
        # Links within the folder are how Kubernetes mounts files.
        path = (folder / name).resolve(strict=True)
        if not path.is_relative_to(folder.resolve(strict=True)):
            raise BundleError(f"{name} leads out of its version's folder")
        # Opening a pipe would wait for its other end.
        if not (path.is_file() or path.is_dir()):
            raise BundleError(f"{name} is not a file")
        return path.open("rb")
    except FileNotFoundError:
        raise BundleError(f"{name} is missing") from None
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
