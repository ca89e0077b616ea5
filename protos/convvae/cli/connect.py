"""The connection options that all commands share, and the client created from them."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from convvae.cli.terminal import printable
from convvae.client import Client
from convvae.config import RetryConfig, TLSConfig

__all__ = ["connect", "connected"]

_PANEL = "Connection"


def connect(
    target: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            envvar="CONVVAE_TARGET",
            help="Call the server at this address.",
            rich_help_panel=_PANEL,
            show_default=True,
        ),
    ] = "localhost:50051",
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL[@VERSION]",
            help="Use this model.",
            show_default="the server's only model",
            rich_help_panel=_PANEL,
        ),
    ] = "",
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="End a request and its retries after this time.", rich_help_panel=_PANEL
        ),
    ] = 30.0,
    retries: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Retry a request at most this often.", rich_help_panel=_PANEL),
    ] = RetryConfig().retries,
    max_in_flight: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Send at most this number of requests at a time.", rich_help_panel=_PANEL
        ),
    ] = 4,
    tls: Annotated[
        bool, typer.Option("--tls", metavar="", help="Encrypt the connection.", rich_help_panel=_PANEL)
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Trust the authorities in this PEM file. This implies --tls.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    tls_server_name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Expect this name in the server's certificate. This implies --tls.",
            rich_help_panel=_PANEL,
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="CONVVAE_TOKEN_FILE",
            help="Send the bearer token in this file.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    allow_insecure_token: Annotated[
        bool,
        typer.Option(
            "--allow-insecure-token",
            metavar="",
            help="Allow to send the token without encryption.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
) -> Client:
    """Return a client with these connection options."""
    encrypt = tls or tls_ca is not None or tls_server_name != ""
    return Client(
        target,
        model=model,
        timeout_s=timeout,
        max_in_flight=max_in_flight,
        retry=RetryConfig(retries=retries),
        tls=TLSConfig(
            root_certificates=_read(tls_ca, "--tls-ca") if tls_ca else None, server_name=tls_server_name
        )
        if encrypt
        else None,
        token=_read(token_file, "--token-file").decode("latin-1").strip() if token_file else None,
        allow_insecure_token=allow_insecure_token,
    )


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{printable(path)}: {error.strerror}", param_hint=option) from None


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command: the wrapper has the options of `connect`, and calls the command with the client."""
    own = list(inspect.signature(command).parameters.values())[1:]
    shared = list(inspect.signature(connect).parameters.values())

    @functools.wraps(command)
    def with_client(**arguments: Any) -> None:
        with connect(**{p.name: arguments.pop(p.name) for p in shared}) as client:
            command(client, **arguments)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared)]
    with_client.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_client.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_client
