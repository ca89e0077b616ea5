"""Certificates and keys of a test's own authority."""

import datetime
from pathlib import Path

import trustme

from convvae import TLSConfig

__all__ = ["Papers"]


class Papers:
    """An authority of the test's own, and the files that a server is given."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.client_ca = folder / "clients.pem"
        self.issue()
        self.authority.cert_pem.write_to_path(str(self.client_ca))

    def issue(self, not_after: datetime.datetime | None = None) -> None:
        """Write a new certificate for loopback."""
        before = None if not_after is None else not_after - datetime.timedelta(days=1)
        issued = self.authority.issue_cert("127.0.0.1", "localhost", not_before=before, not_after=not_after)
        issued.private_key_pem.write_to_path(str(self.key))
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that give a server its certificate."""
        return ("--tls-certificate", str(self.certificate), "--tls-key", str(self.key))

    def trust(self, own: trustme.LeafCert | None = None) -> TLSConfig:
        """Return what a client needs to trust the server, and to show a certificate of its own."""
        return TLSConfig(
            root_certificates=self.authority.cert_pem.bytes(),
            certificate_chain=own.cert_chain_pems[0].bytes() if own else None,
            private_key=own.private_key_pem.bytes() if own else None,
        )
