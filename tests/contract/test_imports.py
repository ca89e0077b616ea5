"""The imports of each module, in a fresh interpreter, and the names in its `__all__`."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.source_modules import FOLDERS, ROOT, modules_of

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
TRAINER = {"convvae_trainer", "torch", "torchvision"}
# A module that loads others, and what must not come with them.
FORBIDDEN = {
    "convvae": HEAVY | {"PIL", "typer", "rich", "pydantic", "convvae_service", "convvae_trainer"},
    "convvae.v1.vae_pb2_grpc": HEAVY | {"PIL", "numpy", "convvae_service", "convvae_trainer"},
    "convvae.cli.app": HEAVY | {"pydantic", "convvae_service", "convvae_trainer"},
    "convvae_service": HEAVY | {"pydantic", "grpc", "numpy", "convvae", "convvae_trainer"},
    "convvae_service.local.opening": HEAVY | {"pydantic", "grpc", "convvae_trainer"},
    "convvae_service.__main__": HEAVY | {"pydantic", "grpc", "numpy", "convvae_trainer"},
    "convvae_service.bundle": HEAVY | {"pydantic", "grpc", "convvae", "convvae_trainer"},
    "convvae_service.images": HEAVY | {"pydantic", "grpc", "convvae", "convvae_trainer"},
    "convvae_service.engine.stages": HEAVY | {"pydantic", "grpc", "convvae", "convvae_trainer"},
    "convvae_service.pipeline.__main__": HEAVY | {"numpy", "convvae_trainer"},
    "convvae_service.pipeline.cli": HEAVY | {"grpc", "convvae_trainer"},
    "convvae_service.pipeline.run": HEAVY | {"convvae_trainer"},
    "convvae_service.pipeline.local": TRAINER | {"pyarrow"},
    "convvae_service.pipeline.remote": HEAVY | {"convvae_trainer"},
    "convvae_service.pipeline.parquet_sink": HEAVY | {"convvae_trainer"},
    "convvae_service.cli.app": HEAVY | {"rich", "convvae_trainer"},
    "convvae_service.cli.serve": HEAVY | {"typer", "rich", "convvae_trainer"},
    "convvae_service.calls.runner": HEAVY | {"grpc", "pydantic", "numpy", "convvae", "convvae_trainer"},
    "convvae_service.server.lifecycle": HEAVY - {"onnxruntime"} | {"typer", "rich", "convvae_trainer"},
    "convvae_trainer": HEAVY | {"numpy", "PIL", "rich", "grpc", "pydantic", "convvae"},
    "convvae_trainer.python.fit": {"torch", "torchvision", "sklearn", "matplotlib", "grpc", "pydantic"},
    "convvae_trainer.__main__": {"torch", "torchvision", "sklearn", "matplotlib", "grpc", "pydantic"},
    "convvae_trainer.cli.app": {"torch", "torchvision", "sklearn", "matplotlib", "grpc", "pydantic"},
    "convvae_trainer.runs.fit": {"grpc", "pydantic", "pydantic_settings", "onnxruntime"},
    "convvae_trainer.commands.compare": {"grpc", "pydantic", "pydantic_settings", "onnxruntime"},
}
# A second `inference.*` in a process breaks the clients of the Open Inference Protocol there.
for _module in FORBIDDEN.keys() - {"convvae_service.server.lifecycle"}:
    FORBIDDEN[_module] |= {"open_inference"}
# These load the rest at first use, which other tests see.
LOADS_LATER = {
    "convvae",
    "convvae.v1.vae_pb2_grpc",
    "convvae_service",
    "convvae_service.__main__",
    "convvae_service.pipeline.__main__",
    "convvae_trainer",
    "convvae_trainer.__main__",
}
SOURCES = [(name, path) for package in FOLDERS for name, path in modules_of(package).items()]


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", FORBIDDEN)
def test_imports_stay_light(module: str) -> None:
    """A module does not load what its users may not have installed, or need not wait for."""
    loaded = run(f"import sys, {module}; print(*sys.modules)").split()
    # A name whose import loads nothing would keep this test from ever failing.
    ours = {name for name in loaded if name.startswith("convvae")}
    parents = {module.rsplit(".", level)[0] for level in range(module.count(".") + 1)}
    assert ours - parents or module in LOADS_LATER, ours
    assert not FORBIDDEN[module] & {name.partition(".")[0] for name in loaded}


def test_the_trainer_loads_no_server() -> None:
    """All modules of the trainer load bundle, images and engine of the service, and of the client nothing."""
    code = "import sys\n"
    code += "".join(f"import {name}\n" for name in modules_of("convvae_trainer") if "__main__" not in name)
    code += "print(*sys.modules)"
    loaded = run(code).split()
    wings = {name.split(".")[1] for name in loaded if name.startswith("convvae_service.")}
    assert wings <= {"bundle", "images", "engine", "errors", "printable"}
    assert not {"grpc", "pydantic", "onnxruntime"} & set(loaded)
    # The client's package gives only the manner of all programs.
    others = {name.split(".")[1] for name in loaded if name.startswith("convvae.")}
    assert others == {"program", "version"}


def test_the_service_never_names_the_trainer() -> None:
    """No source of the service or the client says `convvae_trainer`, in whatever form."""
    for package in ("convvae_service", "convvae"):
        for path in modules_of(package).values():
            assert "convvae_trainer" not in path.read_text(), path


def names_taken(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield (module, name, line) for each `from module import name` of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name, node.lineno) for alias in node.names)


def exports() -> dict[str, set[str]]:
    """Return the `__all__` of each module; the modules of a wing belong to the wing without saying so."""
    known = dict(SOURCES)
    found = {}
    for name in known:
        if name.endswith("__main__"):
            continue
        found[name] = set(getattr(importlib.import_module(name), "__all__", ()))
        found[name] |= {other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == name}
    found["convvae.v1"] |= {"vae_pb2", "vae_pb2_grpc"}
    return found


def test_all_is_true() -> None:
    """Every name in an `__all__` exists, and modules take nothing from each other that is not in one."""
    public = exports()
    for name in public:
        module = importlib.import_module(name)
        for listed in getattr(module, "__all__", ()):
            assert hasattr(module, listed), f"{name} lacks {listed}"
    hidden = [
        f"{path.relative_to(ROOT)}:{line} takes {taken} of {module}"
        for _, path in SOURCES
        for module, taken, line in names_taken(path)
        if module in public and taken not in public[module]
    ]
    assert not hidden, "\n".join(hidden)


@pytest.mark.parametrize(("name", "path"), SOURCES, ids=[name for name, _ in SOURCES])
def test_nothing_is_ever_unpickled(name: str, path: Path) -> None:
    """No source loads a pickle, by whichever name."""
    modules = {module for module, _, _ in names_taken(path)}
    text = path.read_text(encoding="utf-8")
    modules |= {
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not modules & {"pickle", "joblib", "cloudpickle", "marshal", "shelve"}, name
    assert not [word for word in ("torch.load", "torch.save", "allow_pickle=True") if word in text]
