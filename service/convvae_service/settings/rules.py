"""The rules between settings of the server: each is about two or more of them.

The functions raise `ValueError`, whose message names the flags.
"""

from collections.abc import Sequence
from pathlib import Path

from convvae.addresses import is_loopback

__all__ = ["check_limits", "check_security"]


def check_limits(
    *, max_rows_per_call: int, max_queued_rows: int, max_message_bytes: int, max_pending_bytes: int
) -> None:
    """Check that the largest call can be admitted."""
    if max_rows_per_call > max_queued_rows:
        raise ValueError(
            f"--max-queued-rows ({max_queued_rows}) must be at least --max-rows-per-call"
            f" ({max_rows_per_call}), otherwise the largest calls are never admitted"
        )
    # A call holds its request twice (bytes and message), and its results.
    if 4 * max_message_bytes > max_pending_bytes:
        raise ValueError(
            f"--max-pending-bytes ({max_pending_bytes}) must be at least 4 x --max-message-bytes"
            f" ({max_message_bytes}), otherwise the largest calls are never admitted"
        )


def check_security(
    *,
    address: Sequence[str],
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    token_file: Path | None,
    allow_insecure_tokens: bool,
) -> None:
    """Check that the parts of TLS are there together, and that no token travels in plain text."""
    if (tls_certificate is None) != (tls_key is None):
        raise ValueError("--tls-certificate and --tls-key belong together: give both or neither")
    if tls_client_ca and not tls_certificate:
        raise ValueError("--tls-client-ca needs --tls-certificate and --tls-key")
    plain = tls_certificate is None and not allow_insecure_tokens
    exposed = [each for each in address if not is_loopback(each)]
    if token_file and plain and exposed:
        raise ValueError(
            f"tokens would travel in plain text to {exposed[0]}: give --tls-certificate and --tls-key,"
            " or --allow-insecure-tokens if you trust the network"
        )
