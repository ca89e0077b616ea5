"""TLS credentials from PEM files, which may be renewed while the server runs."""

from functools import partial
from pathlib import Path

import grpc

from convvae_service.errors import StartupError
from convvae_service.server.certificate import check_authorities, check_pair
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
        StartupError: A file cannot be read, the key does not belong to the certificate, or the certificate is
            not valid today.
    """
    paths = (certificate, key) if client_authorities is None else (certificate, key, client_authorities)
    files = WatchedFile(paths, partial(_configuration, paths))
    try:
        configuration = files.load()
    except OSError as error:
        raise StartupError(f"TLS: {str(error.filename)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StartupError(f"TLS: {error}") from None
    # gRPC calls `current` at each handshake.
    return grpc.dynamic_ssl_server_credentials(
        configuration, files.current, require_client_authentication=client_authorities is not None
    )


def _configuration(
    paths: tuple[Path, ...], contents: tuple[bytes, ...]
) -> grpc.ServerCertificateConfiguration:
    """Return gRPC's configuration. gRPC itself accepts any bytes, and then every handshake fails."""
    certificate, key, *authorities = contents
    names = [repr(str(path)) for path in paths]
    check_pair(certificate, key, certificate_name=names[0], key_name=names[1])
    for authority, name in zip(authorities, names[2:], strict=True):
        check_authorities(authority, name)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], *authorities)
