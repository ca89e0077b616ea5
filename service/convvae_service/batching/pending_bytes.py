"""The bytes that calls hold in the process, from the arrival of a request until the last byte of its answer.

One account counts those of all callers. What does not fit into it is refused, so the memory of the process
has a limit, however many callers there are and whatever they send.
"""

import sys
import threading

from convvae_service.errors import Overloaded

__all__ = ["UNCOUNTED", "HeldBytes", "PendingBytes"]

# Small calls have this part of the account for themselves: a few large ones must not lock all others out.
_SMALL_CALLS_PART = 16
_SMALL_CALL_BYTES = 1 << 16
_RETRY_DELAY_S = 0.1


class PendingBytes:
    """The account of all calls. Safe to use from any thread.

    Args:
        max_bytes: Maximum bytes that all calls may hold together. A call that holds more than 64 KiB leaves a
            sixteenth of it free. Large replies may pass the limit, because they exist already, and small
            calls still have their sixteenth.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._num_small_bytes = 0
        self._max_small_bytes = max_bytes // _SMALL_CALLS_PART
        self._lock = threading.Lock()

    def hold(self) -> "HeldBytes":
        """Return the part of a new call, which holds nothing yet."""
        return HeldBytes(self)


class HeldBytes:
    """The bytes that one call holds. They are given back exactly once, by `release`."""

    __slots__ = ("_account", "_num_bytes", "_released")

    def __init__(self, account: PendingBytes) -> None:
        self._account = account
        self._num_bytes = 0
        self._released = False

    def add(self, num_bytes: int) -> None:
        """Count more bytes for the call. After `release` this counts nothing.

        Raises:
            Overloaded: They do not fit at present. Nothing has changed.
        """
        account = self._account
        with account._lock:
            if self._released:
                return
            held_bytes = self._num_bytes + num_bytes
            free_bytes = account.max_bytes - account.num_bytes - num_bytes
            if free_bytes < account._max_small_bytes and (
                held_bytes > _SMALL_CALL_BYTES
                or (free_bytes < 0 and account._num_small_bytes + num_bytes > account._max_small_bytes)
            ):
                raise Overloaded(
                    "calls hold as many bytes as the server allows (max_pending_bytes): retry after the"
                    " stated delay",
                    retry_delay_s=_RETRY_DELAY_S,
                )
            self._count(held_bytes)

    def keep(self, num_bytes: int) -> None:
        """Count exactly these bytes from now on: the call has ended, and holds its reply until it is sent.

        The reply exists already, so it counts even where it does not fit. After `release` it does not count.
        """
        with self._account._lock:
            if not self._released:
                self._count(num_bytes)

    def release(self) -> None:
        """Give all bytes back: the answer is sent, or nobody waits for it. Only the first time counts."""
        with self._account._lock:
            self._released = True
            self._count(0)

    def _count(self, num_bytes: int) -> None:
        """Count exactly these bytes. The lock of the account is held."""
        account, before = self._account, self._num_bytes
        account.num_bytes += num_bytes - before
        if before <= _SMALL_CALL_BYTES:
            account._num_small_bytes -= before
        if num_bytes <= _SMALL_CALL_BYTES:
            account._num_small_bytes += num_bytes
        self._num_bytes = num_bytes


# For calls that no runner runs: it never refuses.
UNCOUNTED = PendingBytes(sys.maxsize).hold()
UNCOUNTED.release()
