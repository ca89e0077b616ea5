"""TLS credentials from PEM files, which may be renewed while the server runs."""

import ssl
import tempfile
from pathlib import Path

import grpc

from convvae_service.errors import StartupError
from convvae_service.server.watched_file import WatchedFile

__all__ = ["server_credentials"]


def server_credentials(
    certificate: Path, key: Path, client_authorities: Path | None
) -> grpc.ServerCredentials:
    """Return credentials that are read again when their files change.

    Args:
        certificate: The server's certificate and its chain, PEM.
        key: Its private key, PEM, unencrypted.
        client_authorities: Callers must present a certificate of one of these authorities, PEM; None: callers
            need no certificate.

    Raises:
        StartupError: A file cannot be read, or the key does not belong to the certificate.
    """
    paths = (certificate, key) if client_authorities is None else (certificate, key, client_authorities)
    files = WatchedFile(paths, _configuration)
    try:
        configuration = files.load()
    except OSError as error:
        raise StartupError(f"TLS: {error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise StartupError(f"TLS: {', '.join(map(str, paths))}: {error}") from None
    # gRPC calls `current` at each handshake.
    return grpc.dynamic_ssl_server_credentials(
        configuration, files.current, require_client_authentication=client_authorities is not None
    )


def _configuration(contents: tuple[bytes, ...]) -> grpc.ServerCertificateConfiguration:
    certificate, key, *authorities = contents
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with tempfile.TemporaryDirectory() as folder:
            # Check with the ssl module, which loads keys from files only. gRPC accepts any bytes, and then
            # every handshake fails.
            chain, private = Path(folder, "certificate.pem"), Path(folder, "key.pem")
            chain.write_bytes(certificate)
            private.touch(mode=0o600)
            private.write_bytes(key)
            context.load_cert_chain(chain, private, password=_no_password)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(
            f"the certificate and the key do not belong together or are not PEM ({error})"
        ) from None
    try:
        for authority in authorities:
            context.load_verify_locations(cadata=authority.decode("ascii", "replace"))
    except ssl.SSLError as error:
        raise ValueError(f"the file of client authorities has no valid certificates ({error})") from None
    return grpc.ssl_server_certificate_configuration([(key, certificate)], *authorities)


def _no_password() -> str:
    raise ValueError("the key is encrypted: store it without a password")
