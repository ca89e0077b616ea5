"""The command `convvae-train triton`: a published model as a model repository of NVIDIA Triton."""

import json
from pathlib import Path
from typing import Annotated

import typer

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
            help="The published model. Without a version, the highest one is written.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Triton's model repository: MODEL.encoder and MODEL.decoder go in."),
    ],
    precision: Annotated[
        str,
        typer.Option(metavar="PRECISION", help="The graphs: fp32, fp16 or int8.", rich_help_panel=_GRAPHS),
    ] = "fp32",
    max_batch_size: Annotated[
        int,
        typer.Option(min=1, max=_MAX_ROWS, metavar="N", help="Rows in a batch.", rich_help_panel=_GRAPHS),
    ] = 256,
    max_queue_delay_us: Annotated[
        int,
        typer.Option(
            min=0,
            max=_MAX_DELAY_US,
            metavar="N",
            help="Microseconds that a row waits for others.",
            rich_help_panel=_GRAPHS,
        ),
    ] = 0,
    instances: Annotated[
        int,
        typer.Option(
            min=1, max=1024, metavar="N", help="Batches at the same time, per graph.", rich_help_panel=_GRAPHS
        ),
    ] = 1,
    kind: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|gpu",
            help="Where the instances run; auto: Triton chooses.",
            rich_help_panel=_GRAPHS,
        ),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print the result as JSON.")] = False,
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
    screen = required_stdout()
    if as_json:
        screen.write(json.dumps({"folders": [str(folder) for folder in folders]}, indent=2) + "\n")
    else:
        for folder in folders:
            screen.write(f"written       {folder}\n")
        screen.write(f"next          tritonserver --model-repository {out}\n")
    screen.flush()
