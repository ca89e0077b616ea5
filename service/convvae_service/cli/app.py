"""The command line `convvae-serve` as its help and completion know it, with the command `check`."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from convvae.program.app import Program
from convvae.program.exit_codes import ExitCode
from convvae_service.cli.check import check
from convvae_service.cli.output import print_line
from convvae_service.cli.setting_flags import setting_parameters
from convvae_service.settings.environment import ENV_PREFIX

__all__ = ["app"]

app = Program(
    "convvae-serve",
    help="""Serve the models of a repository over gRPC, or check the repository.

    Without a command, it is run.

    Example: convvae-serve --models models
    """,
    without_codes=[ExitCode.NO_ANSWER],
    say=print_line,
)


def run(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read settings from this TOML file. Flags and variables override it."
        ),
    ] = None,
    **settings: Any,
) -> None:
    """Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C.

    Example: convvae-serve --models models --address 127.0.0.1:50051
    """
    # Help and completion end before this. `convvae_service.__main__` starts a server without this parser.
    del config, settings


_config, _ = inspect.signature(run).parameters.values()
_parameters = [_config, *setting_parameters()]
run.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
run.__annotations__ = {each.name: each.annotation for each in _parameters}
app.command(
    epilog=f"Each flag is also an environment variable, such as {ENV_PREFIX}MAX_BATCH_ROWS, and a key of the"
    " --config file, such as max_batch_rows."
)(run)
app.command()(check)
