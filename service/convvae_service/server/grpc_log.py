"""The log lines of grpcio, without what callers write into them.

grpcio logs a traceback for each call that it cannot read or answer, and the error has what the caller sent:
tokens too. Any caller could fill the log that way.
"""

import logging
import re
import threading
import time
from collections.abc import Callable

from convvae_service.observability.logs import facts
from convvae_service.observability.uncaught import place_of

__all__ = ["GrpcLog"]

# If gRPC cannot send an answer, its error names such an operation. If it cannot read, it names others.
_SENDING = re.compile(r'^Failed "execute_batch": .*\bSend\w+Operation\b')
_INTERVAL_S = 10.0


class GrpcLog(logging.Filter):
    """A filter that makes one warning in ten seconds of what grpcio logs: the kind and the place of an error.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._next_s = -1.0
        self._num_left_out = 0
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record and let it pass, or leave it out."""
        error = record.exc_info[1] if record.exc_info else None
        if _is_caller_that_left(record.getMessage(), error):
            return False
        with self._lock:
            now_s = self._clock()
            if now_s < self._next_s:
                self._num_left_out += 1
                return False
            self._next_s = now_s + _INTERVAL_S
            left_out, self._num_left_out = self._num_left_out, 0
        record.msg, record.args = "gRPC could not read or answer a call", ()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = record.stack_info = None
        record.__dict__.update(
            facts(error=type(error).__name__ if error else "", at=place_of(error), left_out=left_out)
        )
        return True


def _is_caller_that_left(message: str, error: BaseException | None) -> bool:
    """Return whether gRPC only says that a caller left while its answer was being sent."""
    if not message.startswith("ExecuteBatchError raised in core"):
        return False
    return _SENDING.search(str(error)) is not None
