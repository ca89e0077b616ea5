"""The command `convvae-train quantize`: graphs in int8 and fp16. torch loads inside the command."""

import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from convvae_service.bundle import Precision
from convvae_trainer.cli.flags import DataRoot, Download, Json, MaxPixels, OnError
from convvae_trainer.cli.results import print_json, print_quantized
from convvae_trainer.commands.packages import TRAINER_PACKAGES, require, require_runtime
from convvae_trainer.console import say
from convvae_trainer.runs.signals import raise_on_signals
from convvae_trainer.settings.config import MAX_SEED
from convvae_trainer.settings.declaration import Panel
from convvae_trainer.streams import expendable, required_stdout

__all__ = ["quantize"]

_GRAPHS = "Graphs"


class _Precisions(StrEnum):
    INT8 = "int8"
    FP16 = "fp16"
    BOTH = "both"


_PRECISIONS: dict[_Precisions, tuple[Precision, ...]] = {
    _Precisions.INT8: ("int8",),
    _Precisions.FP16: ("fp16",),
    _Precisions.BOTH: ("int8", "fp16"),
}


def quantize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="ROOT/MODEL[@VERSION]",
            help="Convert this published model. Without a version, it is the highest one.",
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            metavar="DATASET",
            help="Read the data that the model was trained on. Training images give the ranges of values,"
            " test images the accuracy.",
            rich_help_panel=Panel.DATA,
        ),
    ],
    data_root: DataRoot = None,
    download: Download = False,
    max_pixels: MaxPixels = None,
    on_error: OnError = None,
    precision: Annotated[
        _Precisions,
        typer.Option(
            metavar="PRECISION",
            help="Add graphs in int8 for processors, in fp16 for GPUs, or both.",
            rich_help_panel=_GRAPHS,
        ),
    ] = _Precisions.INT8,
    calibration_images: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Quantise with this number of training images.", rich_help_panel=_GRAPHS
        ),
    ] = 1024,
    weight_bits: Annotated[
        int,
        typer.Option(
            min=7,
            max=8,
            metavar="N",
            help="Use this number of bits for an int8 weight. With 8, a processor without VNNI gives other"
            " results.",
            rich_help_panel=_GRAPHS,
        ),
    ] = 7,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_SEED,
            metavar="N",
            help="Seed the draws of images and latents.",
            rich_help_panel=_GRAPHS,
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Publish a version with int8 or fp16 graphs beside its fp32 graphs, if they are accurate enough.

    Example: convvae-train quantize models/digits --dataset digits
    """
    require(*TRAINER_PACKAGES)
    require_runtime()
    from convvae_trainer.commands.quantize import QuantizeOptions, run_quantize

    options = QuantizeOptions(
        model=model,
        dataset=dataset,
        precisions=_PRECISIONS[precision],
        data_root=data_root,
        download=download,
        max_pixels=max_pixels,
        on_error=on_error,
        calibration_images=calibration_images,
        weight_bits=weight_bits,
        seed=seed,
    )
    raise_on_signals()
    # stdout is for the result alone.
    progress = Console(file=expendable(sys.stderr))
    found = run_quantize(options, say=lambda text: say(progress, f"{text} …"))
    if as_json:
        print_json(found.to_json_object())
    else:
        print_quantized(Console(file=required_stdout()), found)
