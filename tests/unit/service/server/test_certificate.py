"""The check of a certificate and its key: each fault has its own message, and no file is written."""

import datetime
import errno
import os
import tempfile
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from convvae_service.errors import StartupError
from convvae_service.server.certificate import check_authorities, check_pair
from convvae_service.server.tls import ServerCertificate

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
AUTHORITY = trustme.CA()


def issue(
    after: datetime.datetime | None = None, before: datetime.datetime | None = None
) -> tuple[bytes, bytes]:
    """Return a certificate and its key, PEM."""
    issued = AUTHORITY.issue_cert("localhost", not_after=after, not_before=before)
    return b"".join(blob.bytes() for blob in issued.cert_chain_pems), issued.private_key_pem.bytes()


CERTIFICATE, KEY = issue()
ENCRYPTED = load_pem_private_key(KEY, None).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
)


def check(certificate: bytes, key: bytes) -> None:
    check_pair(certificate, key, certificate_name="'c.pem'", key_name="'k.pem'")


def test_a_pair_that_belongs_together() -> None:
    """A chain, comments in any encoding and a key before or after others are all right."""
    check(CERTIFICATE, KEY)
    check("# Zertifikat für März\n".encode("latin-1") + CERTIFICATE, b"# key\n" + KEY)
    check_authorities("# Behörde\n".encode() + AUTHORITY.cert_pem.bytes(), "'ca.pem'")


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        (b"", KEY, "'c.pem' has no certificate in PEM"),
        (KEY, KEY, "'c.pem' has no certificate in PEM"),
        (CERTIFICATE[:200], KEY, "'c.pem' has no certificate in PEM"),
        (CERTIFICATE, b"", "'k.pem' has no private key in PEM"),
        (CERTIFICATE, CERTIFICATE, "'k.pem' has no private key in PEM"),
        (CERTIFICATE, ENCRYPTED, "the key in 'k.pem' is encrypted: store it without a password"),
        (CERTIFICATE, issue()[1], "the key in 'k.pem' does not belong to the certificate in 'c.pem'"),
        (
            *issue(after=NOW - DAY, before=NOW - 2 * DAY),
            "the certificate in 'c.pem', valid until .* UTC, has expired: renew it",
        ),
        (
            *issue(before=NOW + DAY),
            "the certificate in 'c.pem' is not valid yet, but from .* UTC: check it, and the clock",
        ),
    ],
)
def test_each_fault_has_its_message(certificate: bytes, key: bytes, message: str) -> None:
    """The file that is at fault is named, and what is wrong with it."""
    with pytest.raises(ValueError, match=message):
        check(certificate, key)


def test_a_short_key_is_not_called_a_mismatch() -> None:
    """A key file that is cut is one that TLS cannot use."""
    with pytest.raises(ValueError, match="not a certificate and a key that TLS can use"):
        check(CERTIFICATE, KEY[: len(KEY) // 2] + b"\n-----END PRIVATE KEY-----\n")


@pytest.mark.parametrize("pem", [b"", b"no certificate", KEY])
def test_authorities_are_certificates(pem: bytes) -> None:
    """Anything else is refused by name."""
    with pytest.raises(ValueError, match=r"'ca\.pem', the client authorities, has no certificate in PEM"):
        check_authorities(pem, "'ca.pem'")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_bytes(CERTIFICATE)
    key.write_bytes(KEY)
    return certificate, key


def test_no_temporary_folder_is_needed(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written, a pair is still checked and served."""

    def refuse() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    assert isinstance(ServerCertificate(*files, None).credentials, grpc.ServerCredentials)


def test_a_system_without_files_in_memory_is_said(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the pair is not called wrong."""

    def refuse(name: str) -> int:
        del name
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    with pytest.raises(StartupError, match="cannot be checked in memory: Function not implemented"):
        ServerCertificate(*files, None)


def test_a_file_that_cannot_be_read_is_named(files: tuple[Path, Path]) -> None:
    """A missing file and a folder in its place are said as the system says it."""
    files[1].unlink()
    with pytest.raises(StartupError, match=r"TLS: '.*k\.pem' cannot be read: No such file or directory"):
        ServerCertificate(*files, None)
    files[1].mkdir()
    with pytest.raises(StartupError, match=r"TLS: '.*k\.pem' cannot be read: Is a directory"):
        ServerCertificate(*files, None)
