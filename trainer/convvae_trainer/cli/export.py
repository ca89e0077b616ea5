"""The command `convvae-train export`: a run becomes a version of a model. torch loads inside the command."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convvae_trainer.cli.flags import Download, Json, RunDataRoot, RunTestDataset, RunValidationDataset
from convvae_trainer.cli.results import print_exported, print_json
from convvae_trainer.commands.packages import TRAINER_PACKAGES, require, require_runtime
from convvae_trainer.runs.signals import raise_on_signals
from convvae_trainer.settings.declaration import Panel
from convvae_trainer.streams import required_stdout

__all__ = ["export"]


def export(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Export the run in this folder, which fit made.")
    ],
    models: Annotated[
        Path,
        typer.Option(metavar="ROOT", help="Publish the version in this model repository, as ROOT/MODEL/N."),
    ],
    name: Annotated[str, typer.Option(metavar="MODEL", help="Publish the version under this model name.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Read the data set of the run here, if it was moved.",
            rich_help_panel=Panel.DATA,
        ),
    ] = None,
    test_dataset: RunTestDataset = None,
    validation_dataset: RunValidationDataset = None,
    data_root: RunDataRoot = None,
    download: Download = False,
    unfinished: Annotated[
        bool,
        typer.Option(
            "--unfinished", metavar="", help="Export a run that has not ended. The version says so."
        ),
    ] = False,
    no_fingerprints: Annotated[
        bool,
        typer.Option(
            "--no-fingerprints",
            metavar="",
            help="Leave the fingerprints of the training images out of the version.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Publish the weights of a run as the next version of a model, after a comparison with PyTorch.

    Example: convvae-train export runs/digits --models models --name digits
    """
    require(*TRAINER_PACKAGES)
    require_runtime()
    from convvae_trainer.commands.export import run_export
    from convvae_trainer.commands.stored_run import DataLocation

    raise_on_signals()
    location = DataLocation(
        dataset=dataset,
        test_dataset=test_dataset,
        validation_dataset=validation_dataset,
        data_root=data_root,
        download=download,
    )
    exported = run_export(
        run_dir,
        models=models,
        name=name,
        data=location,
        unfinished=unfinished,
        fingerprints=not no_fingerprints,
    )
    if as_json:
        print_json(exported.to_json_object())
    else:
        print_exported(Console(file=required_stdout()), exported, models=models)
