"""The publication of a model version: a new folder that readers see complete or not at all.

A version is written to a temporary folder beside the others, manifest last, and then renamed. Published
versions never change.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from convvae_service.bundle.durable import sync_folder
from convvae_service.bundle.errors import BundleError
from convvae_service.bundle.listing import MANIFEST_FILE
from convvae_service.bundle.manifest import Manifest
from convvae_service.bundle.names import VERSION_NAME

__all__ = ["METRICS_FILE", "publish"]

# The training metrics of a run, one JSON object per line. A bundle may contain it.
METRICS_FILE = "metrics.jsonl"


def publish(
    root: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    extras: Mapping[str, bytes] | None = None,
    *,
    before_rename: Callable[[Path], object] | None = None,
) -> Path:
    """Publish a new version of `manifest.model` under `root`, and return its folder.

    Args:
        root: The model repository; created if it does not exist.
        manifest: The description of `files`.
        files: The bytes of graphs, and of fingerprints if the manifest lists them, by file name.
        extras: Other files by name, such as the model card and images.
        before_rename: Called with the complete temporary folder. An exception stops the publication.

    Raises:
        BundleError: `files` are not those of the manifest.
        OSError: The folder cannot be written. No file or folder of this version stays.
    """
    given = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    if given != manifest.files:
        raise BundleError(f"files {sorted(given)} are not those of the manifest, {sorted(manifest.files)}")
    folder = root / manifest.model
    temporary = folder / f".tmp-{secrets.token_hex(6)}"
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        temporary.mkdir(parents=True)
        for name, data in {**(extras or {}), **files}.items():
            _write(temporary / name, data)
        _write(temporary / MANIFEST_FILE, manifest.to_json().encode())
        sync_folder(temporary)
        if before_rename is not None:
            before_rename(temporary)
        target = _claim_next_version(folder, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            # The innermost first. A folder that another publisher uses now is not empty, and stays.
            for made in missing:
                made.rmdir()
        raise
    sync_folder(folder)
    for made in missing:
        sync_folder(made.parent)
    return target


def _claim_next_version(folder: Path, temporary: Path) -> Path:
    while True:
        taken = [int(entry.name) for entry in folder.iterdir() if VERSION_NAME.fullmatch(entry.name)]
        target = folder / str(max(taken, default=0) + 1)
        try:
            temporary.rename(target)
        except OSError:
            # If the target exists, another publisher took this number after it was chosen: try the next.
            if not target.exists():
                raise
        else:
            return target


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
