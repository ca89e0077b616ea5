"""The commands of `convvae` on the server itself: its models and its health."""

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from convvae.cli.connect import connected
from convvae.cli.flags import Json
from convvae.cli.table import print_table
from convvae.cli.terminal import complain, say
from convvae.client import Client
from convvae.errors import ConvvaeError, DeadlineExceeded, InvalidInput, TryLater
from convvae.program.exit_codes import ExitCode
from convvae.results import Health

__all__ = ["health", "models"]

_HEALTH_TIMEOUT_S = 5.0


@connected
def models(client: Client, as_json: Json = False) -> None:
    """List the server's models and versions.

    Example: convvae models --target localhost:50051
    """
    summaries = client.models()
    if as_json:
        say(json.dumps({"models": [asdict(model) for model in summaries]}))
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
