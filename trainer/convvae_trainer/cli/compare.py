"""The command `convvae-train compare`: a report on published models. torch loads inside the command."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convvae_trainer.cli.flags import DataRoot, Download, Force, Json, MaxPixels, OnError, check_new_file
from convvae_trainer.cli.results import print_json, print_line
from convvae_trainer.commands.packages import TRAINER_PACKAGES, require, require_runtime
from convvae_trainer.console import say
from convvae_trainer.runs.signals import raise_on_signals
from convvae_trainer.settings.config import MAX_SEED
from convvae_trainer.settings.declaration import Panel
from convvae_trainer.settings.image_size import parse_image_size
from convvae_trainer.streams import expendable, required_stdout

__all__ = ["compare"]

_REPORT = "Report"


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="ROOT/MODEL[@VERSION]...",
            help="Compare these published models. Without a version, it is the highest one.",
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            metavar="DATASET",
            help="Compare on the test images of this data set: digits, a torchvision set such as mnist, or a"
            " path.",
            rich_help_panel=Panel.DATA,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Write the report to this HTML file, with REPORT.json and REPORT_files/ beside REPORT.html.",
            rich_help_panel=_REPORT,
        ),
    ],
    data_root: DataRoot = None,
    download: Download = False,
    max_pixels: MaxPixels = None,
    on_error: OnError = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="H[xW]",
            help="Resize all images to this height and width, in the way of the first model.",
            show_default="the size of the data",
            rich_help_panel=Panel.DATA,
        ),
    ] = None,
    images: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Measure at most this many test images.", rich_help_panel=Panel.DATA
        ),
    ] = 10_000,
    columns: Annotated[
        int,
        typer.Option(
            min=1, max=32, metavar="N", help="Show this many images in a row.", rich_help_panel=_REPORT
        ),
    ] = 8,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_SEED,
            metavar="N",
            help="Seed all random draws: images, latents and weights.",
            rich_help_panel=_REPORT,
        ),
    ] = 0,
    scatter: Annotated[
        bool,
        typer.Option(
            "--scatter/--no-scatter",
            metavar="",
            help="Train three models with two latents for the scatter plot of latents.",
            rich_help_panel=_REPORT,
        ),
    ] = True,
    scatter_epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Train each of these three models for this number of epochs.",
            show_default="400 batches of 128",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    frechet: Annotated[
        bool,
        typer.Option(
            "--frechet/--no-frechet",
            metavar="",
            help="Train a classifier for Fréchet distances.",
            rich_help_panel=_REPORT,
        ),
    ] = True,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Compare published models on test images: one HTML report with figures, pictures and loss curves.

    Example: convvae-train compare models/vae models/vae-gan --dataset digits --out report.html
    """
    check_new_file(out, force=force)
    # The report's figures and pictures.
    for path in (out.with_suffix(".json"), *sorted(out.with_name(f"{out.stem}_files").glob("*.png"))):
        check_new_file(path, force=force)
    size = None if image_size is None else parse_image_size(image_size, name="--image-size")
    require(*TRAINER_PACKAGES, "matplotlib", "scipy")
    require_runtime()
    from convvae_trainer.commands.compare import CompareOptions, run_compare

    options = CompareOptions(
        models=models,
        dataset=dataset,
        out=out,
        data_root=data_root,
        download=download,
        image_size=size,
        max_pixels=max_pixels,
        on_error=on_error,
        images=images,
        columns=columns,
        seed=seed,
        scatter=scatter,
        scatter_epochs=scatter_epochs,
        frechet=frechet,
    )
    raise_on_signals()
    # With --json, stdout is for the result alone.
    console = Console(file=expendable(sys.stderr) if as_json else required_stdout())
    command = shlex.join(["convvae-train", *sys.argv[1:]])
    comparison = run_compare(options, command=command, say=lambda text: say(console, f"{text} …"))
    if as_json:
        print_json({"report": str(out), **comparison.to_json_object()})
        return
    for claim in comparison.claims:
        say(console, f"{claim.verdict:<26}  {claim.text}")
    print_line(console, "report", str(out))
