"""The check of a certificate and its private key, in memory."""

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime

from convvae_service.server.validity import validities

__all__ = ["check_authorities", "check_pair"]

_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")


def check_pair(certificate: bytes, key: bytes, *, certificate_name: str, key_name: str) -> datetime:
    """Check that a server can use a certificate with a key, both PEM, and return when it expires.

    The certificate may have a chain, which is checked too. Messages have the names.

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
    return _check_dates(certificate, certificate_name)


def check_authorities(authorities: bytes, name: str) -> None:
    """Check that PEM bytes are certificates, and that one of them is valid today. Messages call them `name`.

    Raises:
        ValueError: They are not.
    """
    _check_certificates(authorities, f"{name}, the client authorities, has no certificate in PEM")
    now = datetime.now(UTC)
    dates = _dates(authorities, name)
    if not any(first <= now <= last for first, last in dates):
        raise ValueError(
            f"no certificate in {name}, the client authorities, is valid today: the last one was valid until"
            f" {max(last for _, last in dates):%Y-%m-%d %H:%M} UTC"
        )


def _check_certificates(pem: bytes, message: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=_ascii(pem))
    except (ssl.SSLError, ValueError):
        raise ValueError(message) from None


def _check_dates(pem: bytes, name: str) -> datetime:
    """Return when the first of the certificates expires. Callers check all of a chain."""
    now = datetime.now(UTC)
    dates = _dates(pem, name)
    for number, (first, last) in enumerate(dates, start=1):
        which = "the certificate" if number == 1 else f"certificate {number}"
        if now > last:
            raise ValueError(
                f"{which} in {name}, valid until {last:%Y-%m-%d %H:%M} UTC, has expired: renew it"
            )
        if now < first:
            raise ValueError(
                f"{which} in {name} is not valid yet, but from {first:%Y-%m-%d %H:%M} UTC: check it, and the"
                " clock of this machine"
            )
    return min(last for _, last in dates)


def _dates(pem: bytes, name: str) -> list[tuple[datetime, datetime]]:
    try:
        dates = validities(pem)
    except ValueError:
        dates = []
    if not dates:
        raise ValueError(f"the dates of a certificate in {name} cannot be read")
    return dates


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
