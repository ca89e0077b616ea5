"""The command line `convvae-train`. torch and its like load inside the commands, so that --help is quick."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convvae_trainer.cli.compare import compare
from convvae_trainer.cli.fit import DataRoot, Device, Download, fit
from convvae_trainer.cli.terminal import (
    TRAINER_PACKAGES,
    print_evaluation,
    print_exported,
    require,
    require_runtime,
)

__all__ = ["app"]

app = typer.Typer(
    name="convvae-train",
    help="Train convolutional VAEs and export them for the service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Markup would swallow "[default: 32]", and its tables cut names of options off.
    rich_markup_mode=None,
)
app.command()(fit)
app.command()(compare)

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run that `fit` made.")]
Models = Annotated[Path, typer.Option(help="Model repository: versions go to MODELS/NAME/1, 2, …")]
Name = Annotated[str, typer.Option(help="Name of the model.")]


@app.command()
def export(
    run_dir: RunDir,
    models: Models,
    name: Name,
    dataset: Annotated[
        str | None, typer.Option(help="Where the run's data lie now, if they have moved.")
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Export a run that has not ended; the version says so.")
    ] = False,
) -> None:
    """Publish a run's weights as the next version of a model, checked against PyTorch."""
    require(*TRAINER_PACKAGES)
    require_runtime()
    from convvae_trainer.cli import commands

    exported = commands.run_export(
        run_dir,
        models=models,
        name=name,
        dataset=dataset,
        data_root=data_root,
        download=download,
        unfinished=unfinished,
    )
    print_exported(Console(), exported, models=models)


@app.command()
def evaluate(
    run_dir: RunDir,
    dataset: Annotated[
        str | None, typer.Option(help="Other data: their own test images, or all of them.")
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    binarize: Annotated[str | None, typer.Option(help="none or dynamic. [default: the run's]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all draws. [default: the run's]")] = None,
    importance_samples: Annotated[
        int | None, typer.Option(metavar="K", help="Also estimate log p(x) from so many draws, 1 to 5000.")
    ] = None,
    limit_images: Annotated[
        int | None,
        typer.Option(metavar="N", help="log p(x) of the first test images only. [default: all]"),
    ] = None,
    embedding: Annotated[
        bool, typer.Option("--embedding", help="Compare vectors with pixels and PCA; needs labels.")
    ] = False,
    frechet: Annotated[
        bool, typer.Option("--frechet", help="Fréchet distances in a classifier's features; needs labels.")
    ] = False,
    accuracy_floor: Annotated[
        float | None,
        typer.Option(
            help="Lowest accuracy of that classifier. [default: half way from the commonest class to 1]"
        ),
    ] = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JSON to a file too.")] = None,
) -> None:
    """Evaluate a run on test images: bound and terms, active units, quality of reconstructions."""
    require(*TRAINER_PACKAGES)
    from convvae_trainer.cli import commands
    from convvae_trainer.evaluation.optional_metrics import EvalOptions

    evaluation = commands.run_evaluate(
        run_dir,
        dataset=dataset,
        data_root=data_root,
        download=download,
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
        # What is printed to stdout are the figures alone.
        console=Console(stderr=True),
    )
    if as_json:
        sys.stdout.write(json.dumps(evaluation.to_json_object(), indent=2) + "\n")
    else:
        print_evaluation(Console(), evaluation)
