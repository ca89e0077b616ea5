"""The command line `convvae-train`. torch loads inside the commands, so that the help is quick."""

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
    help="Train convolutional VAEs and export them for the service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command(epilog=objectives_help())(fit)
app.command()(evaluate)
app.command()(export)
app.command()(compare)
app.command(epilog=objectives_help())(study)
app.command()(quantize)
app.command()(triton)
