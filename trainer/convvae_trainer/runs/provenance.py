"""The origin of a run: code, libraries, machine."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from convvae_service.engine.cpus import available_cpus

__all__ = ["code_commit", "hardware", "library_versions"]

LIBRARIES = ("convvae", "torch", "torchvision", "numpy", "pillow", "scikit-learn", "onnx", "onnxscript")
RUNTIMES = ("onnxruntime-gpu", "onnxruntime")
CPU_INFO = Path("/proc/cpuinfo")
# Processors of one name differ in speed by these flags: vectors and bf16, the fastest first.
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
BFLOAT16 = {"amx_bf16": "AMX bf16", "avx512_bf16": "AVX-512 bf16", "bf16": "bf16"}


def library_versions() -> dict[str, str]:
    """Return the versions of the installed libraries that results depend on."""
    versions = {"python": platform.python_version()}
    for name in (*LIBRARIES, *RUNTIMES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def code_commit() -> str:
    """Return the git commit of this package's sources, with `-dirty` if they were changed; "" without git."""
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return ""
    commit = _git(here.parent, "rev-parse", "HEAD") or ""
    changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit}-dirty" if commit and changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hardware() -> str:
    """Return the processor's name, the CPUs that this process may use, and the vector units; no host name."""
    facts = {"model name": platform.processor() or platform.machine()}
    try:
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    except OSError:
        pass
    # The line is called flags on x86, Features on ARM.
    flags = f"{facts.get('flags', '')} {facts.get('Features', '')}".split()
    best = [next((words[flag] for flag in words if flag in flags), "") for words in (VECTORS, BFLOAT16)]
    return ", ".join([facts["model name"], f"{available_cpus()} cores", *filter(None, best)])
