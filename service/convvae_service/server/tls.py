"""TLS credentials from PEM files, which may be renewed while the server runs."""

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from convvae_service.errors import StartupError
from convvae_service.observability.logs import facts
from convvae_service.server.certificate import check_authorities, check_pair
from convvae_service.server.watched_file import WatchedFile

__all__ = ["ServerCertificate"]

# The log warns of a certificate that expires within this time, once a day.
_WARNING_TIME = timedelta(days=14)
_WARNING_INTERVAL_S = 86400.0

_log = logging.getLogger(__name__)


class ServerCertificate:
    """The server's certificate with its key, and the authorities of its callers. They follow their files.

    Args:
        certificate: The server's certificate and its chain, PEM.
        key: Its private key, PEM, unencrypted.
        client_authorities: Callers must present a certificate of one of these authorities, PEM; None: callers
            need no certificate.

    Attributes:
        credentials: The credentials for a server of gRPC.
    """

    def __init__(self, certificate: Path, key: Path, client_authorities: Path | None) -> None:
        """Read the files.

        Raises:
            StartupError: A file cannot be read, the key does not belong to the certificate, or a certificate
                is not valid today.
        """
        self._name = certificate.name
        paths = (certificate, key) if client_authorities is None else (certificate, key, client_authorities)
        try:
            self._files = WatchedFile(paths, partial(_load, paths))
        except OSError as error:
            raise StartupError(f"TLS: {str(error.filename)!r} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise StartupError(f"TLS: {error}") from None
        self._given = self._files.value.configuration
        self._giving = threading.Lock()
        self._warned_s: float | None = None
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._given, self._renewed, require_client_authentication=client_authorities is not None
        )

    @property
    def expires(self) -> datetime:
        """When the certificate in use expires, or the first one of its chain."""
        return self._files.value.expires

    def look(self) -> None:
        """Read the files again, use them if they have changed, and warn before the certificate expires."""
        self._files.look()
        left = self.expires - datetime.now(UTC)
        if left > _WARNING_TIME:
            self._warned_s = None
        elif self._warned_s is None or time.monotonic() - self._warned_s >= _WARNING_INTERVAL_S:
            self._warned_s = time.monotonic()
            _log.warning(
                "the certificate in use has expired: renew it"
                if left < timedelta()
                else "the certificate in use expires soon: renew it",
                extra=facts(file=self._name, expires=f"{self.expires:%Y-%m-%dT%H:%M:%SZ}"),
            )

    def _renewed(self) -> Any:
        """Return what gRPC does not have yet, None if nothing. gRPC calls this at each handshake.

        gRPC replaces what it has without a lock. If each of many handshakes did that, the process would end.
        """
        with self._giving:
            current = self._files.value.configuration
            if current is self._given:
                return None
            self._given = current
            return current


@dataclass(frozen=True, slots=True)
class _Loaded:
    configuration: grpc.ServerCertificateConfiguration
    expires: datetime


def _load(paths: tuple[Path, ...], contents: tuple[bytes, ...]) -> _Loaded:
    """Return gRPC's configuration. gRPC itself accepts any bytes, and then every handshake fails."""
    certificate, key, *authorities = contents
    names = [repr(str(path)) for path in paths]
    expires = check_pair(certificate, key, certificate_name=names[0], key_name=names[1])
    for authority, name in zip(authorities, names[2:], strict=True):
        check_authorities(authority, name)
    return _Loaded(grpc.ssl_server_certificate_configuration([(key, certificate)], *authorities), expires)
