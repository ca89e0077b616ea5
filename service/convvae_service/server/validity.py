"""The dates between which certificates are valid."""

import base64
import re
from datetime import UTC, datetime

__all__ = ["validities"]

_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([^-]*)-----END (?:X509 |TRUSTED )?CERTIFICATE-----"
)
_UTC_TIME = 0x17
_VERSION = 0xA0
# The fields before the validity: serial number, algorithm, issuer.
_FIELDS_BEFORE = 3


def validities(pem: bytes) -> list[tuple[datetime, datetime]]:
    """Return the first and the last moment of each certificate in PEM, in their order.

    Source: RFC 5280, section 4.1.

    Raises:
        ValueError: A certificate cannot be read.
    """
    try:
        return [_validity(base64.b64decode(found[1])) for found in _CERTIFICATE.finditer(pem)]
    except IndexError:
        raise ValueError("a certificate ends too early") from None


def _validity(der: bytes) -> tuple[datetime, datetime]:
    _, certificate, _ = _element(der, 0)
    _, place, _ = _element(der, certificate)
    tag, _, end = _element(der, place)
    if tag == _VERSION:
        place = end
    for _ in range(_FIELDS_BEFORE):
        _, _, place = _element(der, place)
    _, first, _ = _element(der, place)
    _, _, last = _element(der, first)
    return _moment(der, first), _moment(der, last)


def _element(der: bytes, place: int) -> tuple[int, int, int]:
    """Return the tag of the element at a place of DER, and where its content starts and ends."""
    tag, length, start = der[place], der[place + 1], place + 2
    if length >= 0x80:
        size = length - 0x80
        length = int.from_bytes(der[start : start + size], "big")
        start += size
    return tag, start, start + length


def _moment(der: bytes, place: int) -> datetime:
    tag, start, end = _element(der, place)
    text = der[start:end].decode("ascii")
    if tag == _UTC_TIME:
        # Years have two digits there.
        text = ("20" if text < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
