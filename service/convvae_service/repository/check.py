"""The offline check of a model repository, for `convvae-serve check`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from convvae_service.engine.cpus import available_cpus
from convvae_service.errors import StartupError
from convvae_service.printable import printable
from convvae_service.repository.place import find_place
from convvae_service.repository.trial import DEFAULT_LIMITS, LoadLimits, Trial

__all__ = ["Finding", "check_repository"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result for one version. `error` is empty if the version is sound."""

    model: str
    version: int
    summary: str
    error: str = ""


def check_repository(root: Path, limits: LoadLimits = DEFAULT_LIMITS) -> Iterator[Finding]:
    """Verify each version at `root`: manifest, checksums, inputs and outputs, and one run on the CPU.

    `root` is a repository, the folder of one model, or one bundle.

    The fingerprints of the training images are verified too, though no server reads them. Each version is
    tried in a process of its own, within the limits; as many at a time as there are CPUs.

    Raises:
        BundleError: `root` is not a folder.
        StartupError: ONNX Runtime is missing.
    """
    place = find_place(root)
    found = [(model, version) for model, versions in place.published().items() for version in versions]

    def check(each: tuple[str, int]) -> Finding:
        model, version = each
        result = Trial(place.folder(model, version), limits, precision=None, every=True).run()
        if result.fatal:
            raise StartupError(result.error)
        return Finding(model=printable(model), version=version, summary=result.summary, error=result.error)

    with ThreadPoolExecutor(available_cpus()) as threads:
        yield from threads.map(check, found)
