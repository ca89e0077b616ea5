"""`export` for callers in Python."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from convvae_trainer.commands.packages import require_runtime
from convvae_trainer.python.data import DatasetLike, named_or_given
from convvae_trainer.python.fit import FittedRun, run_folder
from convvae_trainer.python.process import called_from_python

if TYPE_CHECKING:
    from convvae_trainer.exports.publish import Exported

__all__ = ["export"]


def export(
    run: str | os.PathLike[str] | FittedRun,
    *,
    models: str | os.PathLike[str],
    name: str,
    dataset: DatasetLike | None = None,
    data_root: str | os.PathLike[str] | None = None,
    download: bool = False,
    unfinished: bool = False,
    fingerprints: bool = True,
) -> "Exported":
    """Publish the weights of a run as the next version of a model, as `convvae-train export` does.

        version = export(run, models="models", name="digits")
        version.folder, version.manifest

    Args:
        run: The folder of a run, or what `fit` returned.
        models: The model repository. The version becomes MODELS/NAME/N.
        name: The name of the model.
        dataset: The data of the run, if they were moved, or the array that it was trained on.
        data_root: Look for torchvision sets in this folder. None: in that of the run.
        download: Whether to download a torchvision set that is absent.
        unfinished: Whether to export a run that has not ended. The version says so.
        fingerprints: Whether the version has the fingerprints of the training images.

    Raises:
        BadRun: The run has not ended, it trains no encoder yet, or the data are not those of the run.
        BadData: The data set is missing or damaged.
        BadConfig: The model cannot have this name, or the repository cannot be written.
        ExportFailed: ONNX Runtime does not compute what PyTorch computes; nothing was published.
        MissingExtra: A package is not installed.
    """
    require_runtime()
    with called_from_python():
        from convvae_trainer.commands.export import run_export
        from convvae_trainer.commands.stored_run import DataLocation

        named, given = named_or_given(dataset, None)
        return run_export(
            run_folder(run),
            models=Path(models),
            name=name,
            data=DataLocation(
                dataset=named,
                data_root=None if data_root is None else os.fspath(data_root),
                download=download,
                given=given,
            ),
            unfinished=unfinished,
            fingerprints=fingerprints,
        )
