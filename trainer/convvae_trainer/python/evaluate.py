"""`evaluate` for callers in Python."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from convvae_trainer.python.data import DatasetLike, named_or_given
from convvae_trainer.python.fit import FittedRun, run_folder, screen
from convvae_trainer.python.process import called_from_python

if TYPE_CHECKING:
    from convvae_trainer.evaluation.metrics import Evaluation

__all__ = ["evaluate"]


def evaluate(
    run: str | os.PathLike[str] | FittedRun,
    *,
    dataset: DatasetLike | None = None,
    labels: NDArray[Any] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    download: bool = False,
    max_pixels: int | None = None,
    on_error: str | None = None,
    binarize: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    importance_samples: int | None = None,
    limit_images: int | None = None,
    embedding: bool = False,
    frechet: bool = False,
    accuracy_floor: float | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> "Evaluation":
    """Evaluate a run on test images, as `convvae-train evaluate` does.

        evaluate("runs/digits", importance_samples=100).optional.log_likelihood

    Images that the run was trained on are left out.

    Args:
        run: The folder of a run, or what `fit` returned.
        dataset: Other data than those of the run: their test images, or all images where they have no test
            split. A run that was trained on an array needs the array again.
        labels: For an array, the classes of its images: integers of shape (N,).
        data_root: Look for torchvision sets in this folder. None: in that of the run.
        download: Whether to download a torchvision set that is absent.
        max_pixels: Read image files up to this width x height. None: as in the run.
        on_error: `fail` or `skip` for image files that cannot be used. None: as in the run.
        binarize: `dynamic` draws each pixel as 0 or 1, `none` uses grey levels. None: as in the run.
        seed: Seed of all random draws. None: that of the run.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. None: that of the run.
        importance_samples: Estimate log p(x) from this number of importance samples per image, 1 to 5000.
        limit_images: Estimate log p(x) on the first images only.
        embedding: Whether to compare latents with pixels and principal components; this needs labels.
        frechet: Whether to compute Fréchet distances; this needs labels.
        accuracy_floor: Refuse Fréchet distances if the classifier has a lower accuracy than this.
        out: Write all figures to this JSON file too.
        progress: Whether to print lines on the progress.

    Returns:
        All figures. `to_json_object` has them under one flat set of keys.

    Raises:
        BadRun: The run cannot be used, or its data have changed.
        BadData: The data set is missing, damaged or of another shape, or the run was trained on all of it.
        BadConfig: An option is not allowed, or cannot be computed from the data.
        MissingExtra: A package is not installed.
    """
    with called_from_python():
        from convvae_trainer.commands.evaluate import run_evaluate
        from convvae_trainer.commands.stored_run import DataLocation
        from convvae_trainer.evaluation.options import EvalOptions

        named, given = named_or_given(dataset, labels)
        return run_evaluate(
            run_folder(run),
            data=DataLocation(
                dataset=named,
                data_root=None if data_root is None else os.fspath(data_root),
                download=download,
                max_pixels=max_pixels,
                on_error=on_error,
                given=given,
            ),
            binarize=binarize,
            seed=seed,
            device=device,
            options=EvalOptions(
                importance_samples=importance_samples,
                limit_images=limit_images,
                embedding=embedding,
                frechet=frechet,
                accuracy_floor=accuracy_floor,
            ),
            out=None if out is None else Path(out),
            console=screen(progress),
        )
