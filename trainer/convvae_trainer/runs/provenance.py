"""Where a run comes from: code, libraries, machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

__all__ = ["code_commit", "hardware", "library_versions"]

LIBRARIES = ("convvae", "torch", "torchvision", "numpy", "pillow", "scikit-learn", "onnx", "onnxscript")
RUNTIMES = ("onnxruntime-gpu", "onnxruntime")
CPU_INFO = Path("/proc/cpuinfo")
# What decides how fast a processor of one name is here: its flag for vectors and for bf16, the best first.
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
BFLOAT16 = {"amx_bf16": "AMX bf16", "avx512_bf16": "AVX-512 bf16", "bf16": "bf16"}


def library_versions() -> dict[str, str]:
    """Return the installed versions of what a result depends on, absent ones left out."""
    versions = {"python": platform.python_version()}
    for name in (*LIBRARIES, *RUNTIMES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def code_commit() -> str:
    """Return the git commit of this package's sources, `-dirty` when they differ from it; "" without git."""
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
    """Return the processor, how many of its cores this process may use, and its vectors; no host name."""
    facts = {"model name": platform.processor() or platform.machine()}
    try:
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # x86 calls them flags, ARM features.
    flags = f"{facts.get('flags', '')} {facts.get('Features', '')}".split()
    best = [next((words[flag] for flag in words if flag in flags), "") for words in (VECTORS, BFLOAT16)]
    return ", ".join([facts["model name"], f"{cores} cores", *filter(None, best)])
