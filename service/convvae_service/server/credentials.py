"""The credentials of a server, and the thread that renews them."""

import logging
import threading

from convvae_service.observability.metrics import Metrics
from convvae_service.server.auth import Tokens
from convvae_service.server.tls import ServerCertificate
from convvae_service.settings.serve import ServeSettings

__all__ = ["Credentials"]

_INTERVAL_S = 0.5

_log = logging.getLogger(__name__)


class Credentials:
    """The certificate and the tokens of a server, where its settings have them.

    Attributes:
        certificate: The certificate; None: connections are not encrypted.
        tokens: The tokens that callers must have one of; None accepts everybody.
    """

    def __init__(self, settings: ServeSettings) -> None:
        """Read their files.

        Raises:
            StartupError: One of them cannot be used.
        """
        self.certificate = (
            ServerCertificate(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
            if settings.tls_certificate and settings.tls_key
            else None
        )
        self.tokens = Tokens(settings.token_file) if settings.token_file else None
        self._closed = threading.Event()

    def start(self, metrics: Metrics) -> None:
        """Follow the files, and show when the certificate expires.

        Raises:
            RuntimeError: The system allows no more threads.
        """
        if self.certificate is not None:
            certificate = self.certificate
            metrics.watch_certificate(lambda: certificate.expires.timestamp())
        if self.certificate is not None or self.tokens is not None:
            # A daemon does not keep the process alive when a network disk hangs.
            threading.Thread(target=self._follow, name="credentials", daemon=True).start()

    def close(self) -> None:
        """Follow the files no more."""
        self._closed.set()

    def _follow(self) -> None:
        while not self._closed.wait(_INTERVAL_S):
            for followed in (self.certificate, self.tokens):
                try:
                    if followed is not None:
                        followed.look()
                except Exception:  # noqa: BLE001 - the next look may succeed
                    _log.exception("internal error: credentials cannot be renewed")
