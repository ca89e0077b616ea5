"""The offline check of a model repository, for `convvae-serve check`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convvae_service.bundle import BundleError, list_models, list_versions, read_bundle
from convvae_service.engine.stages import Engine
from convvae_service.printable import printable

__all__ = ["Finding", "check_repository"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result for one version. `error` is empty if the version is sound."""

    model: str
    version: int
    summary: str
    error: str = ""


def check_repository(root: Path) -> Iterator[Finding]:
    """Verify each version under `root`: manifest, checksums, inputs and outputs, and one run on the CPU.

    Raises:
        BundleError: `root` is not a folder.
        StartupError: ONNX Runtime is missing.
    """
    for model in list_models(root):
        for version in list_versions(root, model):
            try:
                summary = _check_version(root / model / str(version))
            except BundleError as error:
                yield Finding(model=printable(model), version=version, summary="", error=str(error))
            except OSError as error:
                reason = f"cannot be read: {error.strerror or 'input or output error'}"
                yield Finding(model=printable(model), version=version, summary="", error=reason)
            else:
                yield Finding(model=model, version=version, summary=summary)


def _check_version(folder: Path) -> str:
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    for precision in manifest.precisions:
        Engine(bundle, precision=precision, device="cpu").warm(1)
    return (
        f"{manifest.objective}, {manifest.likelihood.name}, {manifest.image}, latent {manifest.latent_dim},"
        f" {', '.join(manifest.precisions)}"
    )
