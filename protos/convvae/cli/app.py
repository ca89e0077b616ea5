"""The commands of `convvae`. Each reads inputs, calls the client, writes results and prints a report."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from convvae.cli.connect import connected
from convvae.cli.outputs import Form, Output
from convvae.cli.shown_images import read_for_grid
from convvae.cli.sources import read_array, read_images
from convvae.cli.table import print_table
from convvae.cli.terminal import complain, note, printable, say
from convvae.client import Client
from convvae.errors import ConvvaeError, DeadlineExceeded, InvalidInput, TryLater
from convvae.inputs.folders import describe_left_out
from convvae.program.app import Program
from convvae.program.exit_codes import ExitCode
from convvae.results import Answer, Health

__all__ = ["app"]

_HEALTH_TIMEOUT_S = 5.0
_PICTURES: tuple[Form, ...] = ("npy", "npz", "png", "folder")

app = Program(
    "convvae",
    help="""Call a convvae server.

    Example: convvae sample --count 16 --out grid.png --target localhost:50051
    """,
    say=say,
)

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


@app.command()
@connected
def models(client: Client, as_json: Json = False) -> None:
    """List the server's models and versions.

    Example: convvae models --target localhost:50051
    """
    summaries = client.models()
    if as_json:
        rows = [
            {
                "name": model.name,
                "versions": [
                    {
                        "version": version.version,
                        "state": version.state,
                        "is_default": version.is_default,
                        "error": version.error,
                    }
                    for version in model.versions
                ],
            }
            for model in summaries
        ]
        say(json.dumps({"models": rows}))
        return
    print_table(
        "models",
        ["model", "version", "state", "default", "error"],
        [
            [model.name, str(v.version), v.state, "yes" if v.is_default else "", v.error]
            for model in summaries
            for v in model.versions
        ],
    )


@app.command()
@connected
def health(
    client: Client,
    service: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Check this model, or `liveness`.", show_default="the whole server"
        ),
    ] = "",
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, metavar="SECONDS", help="Wait at most this time until it serves."),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Check the health of a server, or of one of its models. The exit code is 0 if it serves, 1 if not.

    An answer is awaited for at most 5 s. Without one, the exit code is 3.

    Example: convvae health --wait 30
    """
    try:
        status = _health(client, service, wait_s)
    except InvalidInput:
        raise
    except DeadlineExceeded:
        complain(
            f"{client.target}: no answer in time; the server may be overloaded or at its limit of connections"
        )
        raise typer.Exit(ExitCode.NO_ANSWER) from None
    except ConvvaeError as error:
        complain(error)
        raise typer.Exit(ExitCode.NO_ANSWER) from None
    say(json.dumps({"service": service, "status": status.name}) if as_json else status.name)
    raise typer.Exit(ExitCode.DONE if status is Health.SERVING else ExitCode.FAILED)


def _health(client: Client, service: str, wait_s: float) -> Health:
    """Check the health every 0.1 s until the service serves or `wait_s` is over. Return the last status."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            left_s = deadline_s - time.monotonic()
            limit_s = min(max(left_s, 0.1) if wait_s else client.timeout_s, _HEALTH_TIMEOUT_S)
            status = client.health(service, timeout_s=limit_s)
        except (TryLater, DeadlineExceeded):
            if time.monotonic() >= deadline_s:
                raise
        else:
            if status is Health.SERVING or time.monotonic() >= deadline_s:
                return status
        time.sleep(0.1)
