"""What each package pulls in: light where it must be light, in a fresh interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "sklearn",
    "matplotlib",
    "pyarrow",
    "opentelemetry",
}
FORBIDDEN = {
    "convvae": HEAVY | {"PIL", "typer", "rich", "pydantic", "convvae_service", "convvae_trainer"},
    "convvae.v1.vae_pb2_grpc": HEAVY | {"PIL", "numpy", "convvae_service", "convvae_trainer"},
    "convvae_service.server": HEAVY - {"onnxruntime"} | {"typer", "rich", "convvae_trainer"},
    "convvae_service.bundle": HEAVY | {"pydantic", "grpc", "convvae", "convvae_trainer"},
    "convvae_service.pixels": HEAVY | {"pydantic", "grpc", "convvae", "convvae_trainer"},
    "convvae_service.__main__": HEAVY | {"pydantic", "grpc", "numpy", "convvae_trainer"},
    "convvae_service.pipeline": {"torch", "torchvision", "convvae_trainer"},
    "convvae_trainer.__main__": {"torch", "torchvision", "sklearn", "matplotlib", "grpc", "pydantic"},
}
# All that the trainer may take from the service.
SHARED_WITH_TRAINER = {"convvae_service.bundle", "convvae_service.pixels"}


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done


# A second `inference.*` in a process breaks the clients of the Open Inference Protocol there.
for _module in FORBIDDEN.keys() - {"convvae_service.server"}:
    FORBIDDEN[_module] |= {"open_inference"}


@pytest.mark.parametrize("module", FORBIDDEN)
def test_imports_stay_light(module: str) -> None:
    """A package does not load what its users may not have installed, or need not wait for."""
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not FORBIDDEN[module] & set(done.stdout.split())


def test_all_names_are_there() -> None:
    """Every name in an `__all__` of the three packages exists."""
    code = """
import importlib, pkgutil
for package in ("convvae", "convvae_service", "convvae_trainer"):
    root = importlib.import_module(package)
    names = [package] + [m.name for m in pkgutil.walk_packages(root.__path__, package + ".")]
    for name in names:
        if "_pb2" in name:
            continue
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            assert hasattr(module, public), f"{name} lacks {public}"
print("checked", len(names))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "checked" in done.stdout


def test_the_trainer_takes_bundle_and_pixels_alone() -> None:
    """No module of the trainer imports anything else of the service; the service imports no trainer."""
    root = Path(__file__).parents[2]
    for file in (root / "trainer").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                whole = node.module == "convvae_service"
                modules = [f"convvae_service.{a.name}" if whole else node.module or "" for a in node.names]
            else:
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            of_service = {name for name in modules if name.startswith("convvae_service")}
            assert of_service <= SHARED_WITH_TRAINER, f"{file.name} imports {of_service}"
    for file in (root / "service").rglob("*.py"):
        assert "convvae_trainer" not in file.read_text(), file
