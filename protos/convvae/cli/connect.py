"""The connection options that all commands share, and the client that is made of them."""

from contextlib import AbstractContextManager
from typing import Annotated

import typer

from convvae.client import Client
from convvae.config import RetryConfig
from convvae.connection.security import PANEL, Security, security_of
from convvae.connection.shared_options import with_options_of

__all__ = ["connect", "connected"]


@with_options_of(security_of)
def connect(
    security: Security,
    target: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            envvar="CONVVAE_TARGET",
            help="Call the server at this address.",
            rich_help_panel=PANEL,
            show_default=True,
        ),
    ] = "localhost:50051",
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL[@VERSION]",
            help="Use this model.",
            show_default="the server's only model",
            rich_help_panel=PANEL,
        ),
    ] = "",
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="End a request and its retries after this time.", rich_help_panel=PANEL
        ),
    ] = 30.0,
    retries: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Retry a request at most this often.", rich_help_panel=PANEL),
    ] = RetryConfig().retries,
    max_in_flight: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Send at most this number of requests at a time.", rich_help_panel=PANEL
        ),
    ] = 4,
) -> Client:
    """Return a client with these connection options."""
    return Client(
        target,
        model=model,
        timeout_s=timeout,
        max_in_flight=max_in_flight,
        retry=RetryConfig(retries=retries),
        **security.client_settings(),
    )


def _itself(client: Client) -> AbstractContextManager[Client]:
    return client


# The client is the first argument of the command, and is closed after it.
connected = with_options_of(connect, enter=_itself)
