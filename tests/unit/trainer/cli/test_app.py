"""The command line as a whole: errors as one line, missing packages, quick help."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.commands import run_train


@pytest.mark.parametrize("package", ["torch", "torchvision", "safetensors", "onnx", "onnxscript"])
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, package: str
) -> None:
    """If a package of the trainer is missing, the error says what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    assert run_train(monkeypatch, "fit", "--dataset", "digits", "--run-dir", str(tmp_path / "run")) == 2
    assert capsys.readouterr().err == f'error: {package} is not installed: pip install "convvae[trainer]"\n'


def test_a_missing_runtime_is_noticed_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without ONNX Runtime, a run with an export is refused before training."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    arguments = ["--dataset", "digits", "--models", str(tmp_path / "m"), "--name", "digits"]
    assert run_train(monkeypatch, "fit", "--run-dir", str(tmp_path / "run"), *arguments) == 2
    message = (
        'error: onnxruntime is not installed: pip install "convvae[gpu]" or pip install "convvae[cpu]"\n'
    )
    assert capsys.readouterr().err == message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "run.json"), "error: run.json: No space left on device\n"),
        (PermissionError(13, "Permission denied"), "error: input or output: Permission denied\n"),
        (MemoryError(), "error: memory ran out: use fewer or smaller images\n"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: Exception,
    message: str,
) -> None:
    """An error of the operating system is one line with exit code 1, without a traceback."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("convvae_trainer.commands.evaluate.run_evaluate", fail)
    assert run_train(monkeypatch, "evaluate", str(tmp_path)) == 1
    assert capsys.readouterr().err == message


def test_help_is_quick_and_light() -> None:
    """`--help` loads neither torch nor ONNX, and the package can be run as a module."""
    code = (
        "import sys; sys.argv = ['convvae-train', '--help']\n"
        "from convvae_trainer.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'onnx', 'onnxruntime', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    module = [sys.executable, "-m", "convvae_trainer", "fit", "--help"]
    assert "--run-dir" in subprocess.run(module, capture_output=True, text=True, check=True).stdout
