"""The packages that a command needs, checked before it starts."""

import importlib.util

from convvae_trainer.errors import MissingExtra

__all__ = ["TRAINER_PACKAGES", "require", "require_runtime"]

TRAINER_PACKAGES = ("torch", "torchvision", "safetensors", "onnx", "onnxscript")


def require(*packages: str) -> None:
    """Check that packages are installed, without loading them.

    Raises:
        MissingExtra: A package is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "trainer")


def require_runtime() -> None:
    """Check that ONNX Runtime is installed, without loading it.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtra("onnxruntime", "gpu", "cpu")
