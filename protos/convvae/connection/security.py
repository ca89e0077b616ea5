"""The options of a command line that encrypt a connection and name the caller."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["PANEL", "Security", "security_of"]

PANEL = "Connection"


@dataclass(frozen=True, kw_only=True, slots=True)
class Security:
    """How a connection is encrypted, and who calls. The files are read when a client is made.

    Attributes:
        tls: Whether to encrypt. The three files below and the name imply it.
        tls_ca: Authorities to trust, in PEM. None trusts those that gRPC includes.
        tls_certificate: The caller's own certificate, in PEM.
        tls_key: The key of that certificate, in PEM.
        tls_server_name: The name in the server's certificate, or "" for the target's host.
        token_file: A file with the caller's bearer token.
        allow_insecure_token: Whether the token may be sent without encryption.
    """

    tls: bool = False
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str = ""
    token_file: Path | None = None
    allow_insecure_token: bool = False

    def check(self) -> None:
        """Raise `typer.BadParameter` if one of certificate and key is missing."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            given, missing = "--tls-certificate", "--tls-key"
            if self.tls_certificate is None:
                given, missing = missing, given
            raise typer.BadParameter(f"needs {missing}", param_hint=given)

    @property
    def tls_options(self) -> dict[str, object]:
        """The options for an encrypted connection, None where they are not given."""
        return {
            "--tls": self.tls or None,
            "--tls-ca": self.tls_ca,
            "--tls-certificate": self.tls_certificate,
            "--tls-key": self.tls_key,
            "--tls-server-name": self.tls_server_name or None,
        }

    def client_settings(self) -> dict[str, Any]:
        """Return the arguments `tls`, `token` and `allow_insecure_token` of a client.

        Raises:
            typer.BadParameter: A file cannot be read, or a certificate comes without its key.
        """
        from convvae.config import TLSConfig  # it loads protobuf, which the help of a command does not need

        self.check()
        config = TLSConfig(
            root_certificates=_read(self.tls_ca, "--tls-ca"),
            certificate_chain=_read(self.tls_certificate, "--tls-certificate"),
            private_key=_read(self.tls_key, "--tls-key"),
            server_name=self.tls_server_name,
        )
        token = _read(self.token_file, "--token-file")
        return {
            "tls": config if any(value is not None for value in self.tls_options.values()) else None,
            "token": None if token is None else token.decode("latin-1").strip(),
            "allow_insecure_token": self.allow_insecure_token,
        }


def security_of(
    tls: Annotated[
        bool, typer.Option("--tls", metavar="", help="Encrypt the connection.", rich_help_panel=PANEL)
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Trust the authorities in this PEM file. This implies --tls.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Show the certificate in this PEM file to a server that asks for one. This implies --tls.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the key of --tls-certificate from this PEM file.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    tls_server_name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Expect this name in the server's certificate. This implies --tls.",
            rich_help_panel=PANEL,
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="CONVVAE_TOKEN_FILE",
            help="Send the bearer token in this file.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    allow_insecure_token: Annotated[
        bool,
        typer.Option(
            "--allow-insecure-token",
            metavar="",
            help="Allow to send the token without encryption.",
            rich_help_panel=PANEL,
        ),
    ] = False,
) -> Security:
    """Return the security that the options of a command ask for."""
    return Security(
        tls=tls,
        tls_ca=tls_ca,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_server_name=tls_server_name,
        token_file=token_file,
        allow_insecure_token=allow_insecure_token,
    )


def _read(path: Path | None, option: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{str(path)!r}: {error.strerror}", param_hint=option) from None
