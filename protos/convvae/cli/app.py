"""The commands of `convvae`. Each reads inputs, calls the client, writes results and prints a report."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from convvae.cli.connect import connected
from convvae.cli.flags import Force, Inputs, Json, Pictures, Seed
from convvae.cli.outputs import Form, Output
from convvae.cli.server_state import health, models
from convvae.cli.shown_images import read_for_grid
from convvae.cli.sources import read_array, read_images
from convvae.cli.table import print_table
from convvae.cli.terminal import note, printable, say
from convvae.client import Client
from convvae.inputs.folders import describe_left_out
from convvae.program.app import Program
from convvae.results import Answer

__all__ = ["app"]

_PICTURES: tuple[Form, ...] = ("npy", "npz", "png", "folder")

app = Program(
    "convvae",
    help="""Call a convvae server.

    Example: convvae sample --count 16 --out grid.png --target localhost:50051
    """,
    say=say,
)


def _report(as_json: bool, answer: Answer, text: str, **facts: Any) -> None:
    if as_json:
        who = {"model": answer.model, "version": answer.version, "precision": answer.precision}
        say(json.dumps({**who, **facts}))
    else:
        if left_out := facts.get("left_out"):
            note(describe_left_out(left_out))
        say(printable(f"{text} by {answer.model}@{answer.version} ({answer.precision})"))


@app.command()
@connected
def encode(
    client: Client,
    paths: Inputs,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Write the means to x.npy, or all arrays to x.npz.")
    ],
    log_variance: Annotated[
        bool, typer.Option("--log-variance", metavar="", help="Write log_variance too. This needs x.npz.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Map images to latent vectors.

    Example: convvae encode pictures/ --out z.npy
    """
    output = Output.at(out, forms=("npz",) if log_variance else ("npy", "npz"), force=force)
    source = read_images(paths)
    with source.naming():
        answer = client.encode(source.images, include_log_variance=log_variance)
    arrays = {"mean": answer.mean}
    if answer.log_variance is not None:
        arrays["log_variance"] = answer.log_variance
    output.write_arrays("mean", arrays)
    rows, dimension = answer.mean.shape
    text = f"{out}: {rows} vectors of {dimension}"
    _report(
        as_json,
        answer,
        text,
        out=str(out),
        rows=rows,
        latent_dim=dimension,
        inputs=source.names,
        left_out=source.left_out,
    )


@app.command()
@connected
def decode(
    client: Client,
    latents: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Read vectors of shape (N, Z) from x.npy, or from `mean` or `latents` in x.npz.",
        ),
    ],
    out: Pictures,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Map latent vectors to images.

    Example: convvae decode z.npy --out grid.png
    """
    output = Output.at(out, forms=_PICTURES, force=force)
    array = read_array(latents, keys=("mean", "latents"))
    output.check_count(len(array))
    answer = client.decode(array)
    output.write_images({"images": answer.images})
    _report(as_json, answer, f"{out}: {len(answer.images)} images", out=str(out), rows=len(answer.images))


@app.command()
@connected
def sample(
    client: Client,
    out: Pictures,
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", help="Draw this number of images.")
    ] = 16,
    seed: Seed = None,
    temperature: Annotated[
        float, typer.Option(metavar="X", help="Draw noise with this standard deviation.")
    ] = 1.0,
    first_row: Annotated[int, typer.Option(metavar="N", help="Begin at this row of the seed.")] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw images from the prior.

    Example: convvae sample --count 16 --seed 7 --out grid.png
    """
    output = Output.at(out, forms=_PICTURES, force=force)
    output.check_count(count)
    answer = client.sample(count, seed=seed, temperature=temperature, first_row=first_row)
    output.write_images({"images": answer.images, "latents": answer.latents, "seed": np.uint64(answer.seed)})
    text = f"{out}: {count} images of seed {answer.seed}"
    _report(as_json, answer, text, out=str(out), rows=count, seed=answer.seed)


@app.command()
@connected
def reconstruct(
    client: Client, paths: Inputs, out: Pictures, force: Force = False, as_json: Json = False
) -> None:
    """Encode and decode images. A grid shows each image above its reconstruction.

    Example: convvae reconstruct pictures/ --out compare.png
    """
    output = Output.at(out, forms=_PICTURES, force=force)
    source = read_images(paths)
    output.check_count(2 * len(source.images))
    with source.naming():
        answer = client.reconstruct(source.images)
    info = client.model(model=f"{answer.model}@{answer.version}") if output.form == "png" else None
    output.write_images(
        {"images": answer.images},
        above=None if info is None else partial(read_for_grid, source.images, info),
    )
    rows = len(answer.images)
    _report(
        as_json,
        answer,
        f"{out}: {rows} images",
        out=str(out),
        rows=rows,
        inputs=source.names,
        left_out=source.left_out,
    )


@app.command()
@connected
def score(
    client: Client,
    paths: Inputs,
    num_samples: Annotated[
        int,
        typer.Option(
            metavar="N", help="Average over this number of draws per image. 0 uses the posterior mean."
        ),
    ] = 0,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write elbo, distortion and rate to x.npz.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Print the evidence lower bound (ELBO) of each image, in nats.

    Example: convvae score pictures/
    """
    output = Output.at(out, forms=("npz",), force=force) if out else None
    source = read_images(paths)
    with source.naming():
        answer = client.score(source.images, num_samples=num_samples, seed=seed)
    arrays = {"elbo": answer.elbo, "distortion": answer.distortion, "rate": answer.rate}
    if output:
        output.write_arrays("elbo", arrays)
    figures = {name: array.tolist() for name, array in arrays.items()}
    if as_json:
        means = {name: float(array.mean(dtype=np.float64)) for name, array in arrays.items()}
        facts = {
            **figures,
            "mean": means,
            "seed": answer.seed,
            "inputs": source.names,
            "left_out": source.left_out,
        }
        _report(True, answer, "", **facts)
        return
    if source.left_out:
        note(describe_left_out(source.left_out))
    print_table(
        f"nats per image, {answer.model}@{answer.version} ({answer.precision})",
        ["image", *arrays],
        [
            [name, *(f"{value:.3f}" for value in row)]
            for name, *row in zip(source.names, *figures.values(), strict=True)
        ]
        + [["mean", *(f"{array.mean(dtype=np.float64):.3f}" for array in arrays.values())]],
    )


app.command()(models)
app.command()(health)
