"""The command `convvae-train evaluate`: figures of a run on test images. torch loads inside the command."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convvae_trainer.cli.flags import (
    Download,
    Force,
    Json,
    RunDataRoot,
    RunDevice,
    RunMaxPixels,
    RunOnError,
    RunTestDataset,
    RunValidationDataset,
    check_new_file,
)
from convvae_trainer.cli.results import print_evaluation, print_json
from convvae_trainer.commands.packages import TRAINER_PACKAGES, require
from convvae_trainer.runs.signals import raise_on_signals
from convvae_trainer.settings.declaration import Panel
from convvae_trainer.streams import expendable, required_stdout

__all__ = ["evaluate"]

_METRICS = "Optional metrics"
_OUTPUT = "Output"


def evaluate(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Evaluate the run in this folder, which fit made.")
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Evaluate other data: their test images, or all images where they have no test split.",
            show_default="the data of the run",
            rich_help_panel=Panel.DATA,
        ),
    ] = None,
    test_dataset: RunTestDataset = None,
    validation_dataset: RunValidationDataset = None,
    data_root: RunDataRoot = None,
    download: Download = False,
    max_pixels: RunMaxPixels = None,
    on_error: RunOnError = None,
    binarize: Annotated[
        str | None,
        typer.Option(
            metavar="BINARIZE",
            help="Draw each pixel as 0 or 1 (dynamic), or use the grey levels (none).",
            show_default="as in the run",
            rich_help_panel=Panel.DATA,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Seed all random draws.",
            show_default="the seed of the run",
            rich_help_panel=Panel.COMPUTE,
        ),
    ] = None,
    device: RunDevice = None,
    importance_samples: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Estimate log p(x) from this number of importance samples per image, 1 to 5000.",
            rich_help_panel=_METRICS,
        ),
    ] = None,
    limit_images: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Estimate log p(x) on the first N test images only.",
            show_default="all",
            rich_help_panel=_METRICS,
        ),
    ] = None,
    embedding: Annotated[
        bool,
        typer.Option(
            "--embedding",
            metavar="",
            help="Compare latents with pixels and principal components as embeddings. This needs labels.",
            rich_help_panel=_METRICS,
        ),
    ] = False,
    frechet: Annotated[
        bool,
        typer.Option(
            "--frechet",
            metavar="",
            help="Compute Fréchet distances in the features of a classifier. This needs labels.",
            rich_help_panel=_METRICS,
        ),
    ] = False,
    accuracy_floor: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Refuse Fréchet distances if the classifier has a lower accuracy than this.",
            show_default="the middle between 1 and the share of the most frequent class",
            rich_help_panel=_METRICS,
        ),
    ] = None,
    as_json: Json = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all figures to this JSON file too.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Evaluate a run on test images: the ELBO and its terms, active units, quality of reconstructions.

    Example: convvae-train evaluate runs/digits --importance-samples 100
    """
    check_new_file(out, force=force)
    require(*TRAINER_PACKAGES)
    from convvae_trainer.commands.evaluate import run_evaluate
    from convvae_trainer.commands.stored_run import DataLocation
    from convvae_trainer.evaluation.options import EvalOptions

    raise_on_signals()
    evaluation = run_evaluate(
        run_dir,
        data=DataLocation(
            dataset=dataset,
            test_dataset=test_dataset,
            validation_dataset=validation_dataset,
            data_root=data_root,
            download=download,
            max_pixels=max_pixels,
            on_error=on_error,
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
        out=out,
        # stdout is for the figures alone.
        console=Console(file=expendable(sys.stderr)),
    )
    if as_json:
        print_json(evaluation.to_json_object())
    else:
        print_evaluation(Console(file=required_stdout()), evaluation)
