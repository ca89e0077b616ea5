"""The command `convvae-train compare`: a report on published models. torch loads inside it."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convvae_trainer.cli.fit import DataRoot, Download
from convvae_trainer.cli.terminal import TRAINER_PACKAGES, require, require_runtime
from convvae_trainer.console import say
from convvae_trainer.settings.config import parse_image_size

__all__ = ["compare"]


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="ROOT/MODEL[@VERSION]...", help="Published models; the highest version counts."
        ),
    ],
    dataset: Annotated[
        str, typer.Option(help="digits, a torchvision set such as mnist, or a path: folder, .npy, .npz, idx.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="REPORT.html", help="The report; REPORT.json and REPORT_files/ beside it.")
    ],
    data_root: DataRoot = None,
    download: Download = False,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="H[xW]", help="Resize to this, as the first model's manifest says how."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="So many of the test images are measured.")] = 10_000,
    columns: Annotated[int, typer.Option(min=1, max=32, help="Images in a row.")] = 8,
    seed: Annotated[
        int, typer.Option(min=0, max=2**53 - 1, help="Of all draws: of images, latents and weights.")
    ] = 0,
    scatter: Annotated[
        bool, typer.Option("--scatter/--no-scatter", help="Train three 2-D models for the latent scatter.")
    ] = True,
    scatter_epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each of them. [default: 400 batches of 128]")
    ] = None,
    frechet: Annotated[
        bool, typer.Option("--frechet/--no-frechet", help="Train a classifier for Fréchet distances.")
    ] = True,
) -> None:
    """Compare published models on test images: one HTML report with figures, pictures and loss curves."""
    size = None if image_size is None else parse_image_size(image_size, name="--image-size")
    require(*TRAINER_PACKAGES, "matplotlib")
    require_runtime()
    from convvae_trainer.compare.run import Options, run_compare
    from convvae_trainer.compute.process import configure_process

    options = Options(
        models=models,
        dataset=dataset,
        out=out,
        data_root=data_root,
        download=download,
        image_size=size,
        images=images,
        columns=columns,
        seed=seed,
        scatter=scatter,
        scatter_epochs=scatter_epochs,
        frechet=frechet,
    )
    configure_process()
    console = Console()
    command = shlex.join(["convvae-train", *sys.argv[1:]])
    comparison = run_compare(options, command=command, say=lambda text: say(console, f"{text} …"))
    for claim in comparison.claims:
        say(console, f"{claim.verdict:<24}  {claim.text}")
    say(console, f"report        {out}")
