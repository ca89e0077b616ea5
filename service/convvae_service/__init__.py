"""The service: a server of models, bulk embedding, and models in this process (`open_model`).

Each name is loaded on first use, so that the commands start quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convvae_service.bundle import BundleError
    from convvae_service.errors import StartupError
    from convvae_service.local.model import LocalModel
    from convvae_service.local.opening import open_model

__all__ = ["BundleError", "LocalModel", "StartupError", "open_model"]

_MODULES = {
    "BundleError": "convvae_service.bundle",
    "LocalModel": "convvae_service.local.model",
    "StartupError": "convvae_service.errors",
    "open_model": "convvae_service.local.opening",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
