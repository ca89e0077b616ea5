"""The trainer's place among the packages."""

import ast
import subprocess
import sys
from pathlib import Path

import convvae_trainer

SOURCES = sorted(Path(convvae_trainer.__path__[0]).rglob("*.py"))
NAMES = [path.stem for path in SOURCES if path.stem not in ("__init__", "__main__")]


def imported(path: Path) -> set[str]:
    """Return the modules that a source file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def test_only_the_contract_is_imported() -> None:
    """Of the service, the trainer names `bundle` and `pixels` alone; of the client, nothing."""
    allowed = ("convvae_service.bundle", "convvae_service.pixels")
    for path in SOURCES:
        for name in imported(path):
            if name.startswith("convvae_service.") and not name.startswith(allowed):
                raise AssertionError(f"{path.name} imports {name}")
            assert name.split(".")[0] != "convvae", path.name
            assert name.split(".")[0] not in ("grpc", "pydantic", "pydantic_settings"), path.name


def test_a_fresh_interpreter_loads_no_server() -> None:
    """Importing all of the trainer loads neither gRPC nor the service's other modules."""
    code = "import sys\n" + "".join(f"import convvae_trainer.{name}\n" for name in NAMES)
    code += "print(*sorted(name for name in sys.modules if name.startswith('convvae')))\n"
    code += "print(*({'grpc', 'pydantic', 'onnxruntime', 'convvae'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours, forbidden = done.stdout.split("\n")[:2]
    service = {name for name in ours.split() if name.startswith("convvae_service")}
    contract = {"bundle", "pixels", "manifest", "onnx_file", "array_file", "image_files", "idx", "npy"}
    assert service == {"convvae_service", *(f"convvae_service.{name}" for name in contract)}
    assert forbidden == ""


def test_nothing_is_ever_unpickled() -> None:
    """No source loads a pickle, by whichever name."""
    for path in SOURCES:
        assert not imported(path) & {"pickle", "joblib", "cloudpickle", "marshal", "shelve"}
        text = path.read_text(encoding="utf-8")
        assert "torch.load" not in text
        assert "torch.save" not in text
        assert "allow_pickle=True" not in text
