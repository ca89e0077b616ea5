"""The trainer: convolutional VAEs from images to published models, by commands or by calls from Python.

Each name is loaded on first use: `import convvae_trainer` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convvae_trainer.data.dataset import Dataset
    from convvae_trainer.errors import (
        BadConfig,
        BadData,
        BadRun,
        ExportFailed,
        Interrupted,
        MissingExtra,
        TrainerError,
        TrainingFailed,
    )
    from convvae_trainer.evaluation.metrics import Evaluation
    from convvae_trainer.exports.publish import Exported
    from convvae_trainer.python.data import load_dataset
    from convvae_trainer.python.evaluate import evaluate
    from convvae_trainer.python.export import export
    from convvae_trainer.python.fit import FittedRun, fit

__all__ = [
    "BadConfig",
    "BadData",
    "BadRun",
    "Dataset",
    "Evaluation",
    "ExportFailed",
    "Exported",
    "FittedRun",
    "Interrupted",
    "MissingExtra",
    "TrainerError",
    "TrainingFailed",
    "evaluate",
    "export",
    "fit",
    "load_dataset",
]

_ERRORS = "convvae_trainer.errors"
_MODULES = {
    "Dataset": "convvae_trainer.data.dataset",
    "Evaluation": "convvae_trainer.evaluation.metrics",
    "Exported": "convvae_trainer.exports.publish",
    "FittedRun": "convvae_trainer.python.fit",
    "evaluate": "convvae_trainer.python.evaluate",
    "export": "convvae_trainer.python.export",
    "fit": "convvae_trainer.python.fit",
    "load_dataset": "convvae_trainer.python.data",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES.get(name, _ERRORS)), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
