"""The arguments and flags that several commands of `convvae` share, beside those of the connection."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Force", "Inputs", "Json", "Pictures", "Seed"]

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...", help="Read JPEG, PNG or WebP files, folders of them, or one .npy or .npz file."
    ),
]
Pictures = Annotated[
    Path,
    typer.Option(
        metavar="PATH",
        help="Write the images to x.npy, x.npz, x.png (a grid), or a folder (a PNG for each image).",
    ),
]
Force = Annotated[bool, typer.Option("--force", metavar="", help="Replace files that exist.")]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print the result as one JSON object.")]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Draw the noise from this seed.", show_default="a new seed, which is printed"
    ),
]
