"""The command `convvae-train triton`: a published model as a model repository of NVIDIA Triton."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convvae_trainer.cli.flags import Json
from convvae_trainer.cli.results import print_json, print_line, quoted
from convvae_trainer.errors import BadConfig
from convvae_trainer.streams import required_stdout

__all__ = ["triton"]

_GRAPHS = "Graphs"
_MAX_ROWS = 1 << 16
_MAX_DELAY_US = 10_000_000


def triton(
    model: Annotated[
        str,
        typer.Argument(
            metavar="ROOT/MODEL[@VERSION]",
            help="Write this published model. Without a version, it is the highest one.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Write MODEL.encoder and MODEL.decoder into this model repository of Triton."
        ),
    ],
    precision: Annotated[
        str,
        typer.Option(
            metavar="PRECISION", help="Write the graphs in fp32, fp16 or int8.", rich_help_panel=_GRAPHS
        ),
    ] = "fp32",
    max_batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            max=_MAX_ROWS,
            metavar="N",
            help="Let Triton put at most this number of rows into a batch.",
            rich_help_panel=_GRAPHS,
        ),
    ] = 256,
    max_queue_delay_us: Annotated[
        int,
        typer.Option(
            min=0,
            max=_MAX_DELAY_US,
            metavar="N",
            help="Let a row wait this number of microseconds for others.",
            rich_help_panel=_GRAPHS,
        ),
    ] = 0,
    instances: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            metavar="N",
            help="Run this number of batches of each graph at a time.",
            rich_help_panel=_GRAPHS,
        ),
    ] = 1,
    kind: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|gpu",
            help="Run the instances there. With auto, Triton chooses.",
            rich_help_panel=_GRAPHS,
        ),
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Write a published model for NVIDIA Triton Inference Server. The graphs stay as they are.

    Example: convvae-train triton models/mnist --out triton-models
    """
    from convvae_service.bundle import PRECISIONS
    from convvae_trainer.commands.triton import run_triton
    from convvae_trainer.exports.triton import KINDS, TritonOptions

    if precision not in PRECISIONS:
        raise BadConfig(f"--precision is {precision!r}: it must be {', '.join(PRECISIONS)}")
    if kind not in KINDS:
        raise BadConfig(f"--kind is {kind!r}: it must be {', '.join(KINDS)}")
    options = TritonOptions(
        precision=precision,
        max_batch_size=max_batch_size,
        max_queue_delay_us=max_queue_delay_us,
        instances=instances,
        kind=kind,
    )
    folders = run_triton(model, out, options)
    if as_json:
        print_json({"folders": [str(folder) for folder in folders]})
        return
    console = Console(file=required_stdout())
    for folder in folders:
        print_line(console, "written", str(folder))
    print_line(console, "next", f"tritonserver --model-repository {quoted(out)}")
