"""The command line `convvae-train`. torch loads inside the commands, so that the help is quick."""

from importlib import metadata
from typing import Annotated

import typer

from convvae_trainer.cli.compare import compare
from convvae_trainer.cli.evaluate import evaluate
from convvae_trainer.cli.export import export
from convvae_trainer.cli.fit import fit
from convvae_trainer.cli.flags import objectives_help
from convvae_trainer.cli.quantize import quantize
from convvae_trainer.cli.study import study
from convvae_trainer.cli.triton import triton

__all__ = ["app"]

app = typer.Typer(
    name="convvae-train",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"convvae-train {metadata.version('convvae')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Train convolutional VAEs and export them for the service.

    Exit codes: 0 done; 1 failed halfway; 2 wrong usage or input; 128 plus the number of a signal.
    """
    del version


app.command(epilog=objectives_help())(fit)
app.command()(evaluate)
app.command()(export)
app.command()(compare)
app.command(epilog=objectives_help())(study)
app.command()(quantize)
app.command()(triton)
