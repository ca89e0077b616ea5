"""The check of a certificate and its private key, in memory."""

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator

__all__ = ["check_authorities", "check_pair"]

# Codes of OpenSSL's verification.
_NOT_YET_VALID, _EXPIRED = 9, 10
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")
# A handshake takes three flights.
_MAX_FLIGHTS = 10


def check_pair(certificate: bytes, key: bytes, *, certificate_name: str, key_name: str) -> None:
    """Check that a server can use a certificate with a key, both PEM. Messages have their names.

    Raises:
        ValueError: One of them is not of its kind, the key is encrypted or of another certificate, or the
            certificate is not valid today.
    """
    _check_certificates(certificate, f"{certificate_name} has no certificate in PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def password() -> str:
        raise ValueError(f"the key in {key_name} is encrypted: store it without a password")

    try:
        with _file_of(certificate) as chain, _file_of(key) as private:
            context.load_cert_chain(chain, private, password=password)
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise ValueError(
                f"the key in {key_name} does not belong to the certificate in {certificate_name}"
            ) from None
        if _has_key(key):
            raise ValueError(
                f"{certificate_name} and {key_name} are not a certificate and a key that TLS can use"
                f" ({error.reason or error})"
            ) from None
        raise ValueError(f"{key_name} has no private key in PEM") from None
    except OSError as error:
        raise ValueError(
            f"{certificate_name} and {key_name} cannot be checked in memory: {error.strerror}"
            " (is /proc mounted?)"
        ) from None
    _check_dates(context, certificate, certificate_name)


def check_authorities(authorities: bytes, name: str) -> None:
    """Check that PEM bytes are certificates. Messages call them `name`.

    Raises:
        ValueError: They are not.
    """
    _check_certificates(authorities, f"{name}, the client authorities, has no certificate in PEM")


def _check_certificates(pem: bytes, message: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=_ascii(pem))
    except (ssl.SSLError, ValueError):
        raise ValueError(message) from None


def _check_dates(server: ssl.SSLContext, certificate: bytes, name: str) -> None:
    """Shake hands in memory with a client that trusts this certificate only: it looks at the dates."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=_ascii(certificate))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    try:
        for _ in range(_MAX_FLIGHTS):
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            raise ValueError(f"the certificate in {name} has expired: renew it") from None
        if error.verify_code == _NOT_YET_VALID:
            raise ValueError(
                f"the certificate in {name} is not valid yet: check it, and the clock of this machine"
            ) from None
    except ssl.SSLError:
        # Callers may accept what this client does not.
        return


def _has_key(pem: bytes) -> bool:
    return b"-----BEGIN " in pem and b"PRIVATE KEY-----" in pem


def _ascii(pem: bytes) -> str:
    """Return PEM as text. Comments between the certificates may be in any encoding."""
    return pem.decode("ascii", "ignore")


@contextlib.contextmanager
def _file_of(content: bytes) -> Iterator[str]:
    """Return the path of a file with this content: the ssl module reads keys from files only.

    The file is in memory, where the system can do that: a secret stays off the disk, and the server needs no
    folder that it can write to.
    """
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("pem"), "w+b")
    else:
        file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed below
    with file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"
