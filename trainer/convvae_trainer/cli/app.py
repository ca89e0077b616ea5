"""The command line `convvae-train`. torch loads inside the commands, so that the help is quick."""

from convvae.program.app import Program
from convvae.program.exit_codes import ExitCode
from convvae_trainer.cli.compare import compare
from convvae_trainer.cli.evaluate import evaluate
from convvae_trainer.cli.export import export
from convvae_trainer.cli.fit import fit
from convvae_trainer.cli.flags import objectives_help
from convvae_trainer.cli.quantize import quantize
from convvae_trainer.cli.study import study
from convvae_trainer.cli.triton import triton

__all__ = ["app"]

app = Program(
    "convvae-train",
    help="""Train convolutional VAEs, measure and compare them, and export them for the service.

    Example: convvae-train fit --dataset digits --run-dir runs/digits --models models --name digits
    """,
    without_codes=[ExitCode.NO_ANSWER],
)
app.command(epilog=objectives_help())(fit)
app.command()(evaluate)
app.command()(export)
app.command()(compare)
app.command(epilog=objectives_help())(study)
app.command()(quantize)
app.command()(triton)
