"""Write a published model for NVIDIA Triton, as the command `triton` does."""

from collections.abc import Sequence
from pathlib import Path

from convvae_service.bundle import BundleError, read_bundle
from convvae_trainer.compare.published import find_version
from convvae_trainer.errors import BadConfig
from convvae_trainer.exports.triton import TritonOptions, write_triton

__all__ = ["run_triton"]


def run_triton(model: str, out: Path, options: TritonOptions) -> Sequence[Path]:
    """Write the graphs of ROOT/MODEL[@VERSION] into a model repository of Triton, and return their folders.

    Raises:
        BadConfig: The model is missing or damaged, has no such precision, or a folder exists.
        ExportFailed: A file cannot be written.
    """
    version = find_version(model)
    try:
        bundle = read_bundle(version.folder)
    except (BundleError, OSError) as error:
        raise BadConfig(f"{version.folder}: {error}") from None
    return write_triton(bundle, out, options)
